"""experts: the privileged open-loop expert as an action source, `scripted`.

A reset plans the episode in a copy of the scene; the observations that follow are only its clock. It sees no image and
corrects nothing.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rclpy.node import Node

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_msgs.msg import EpisodeEvent
from e0_msgs.msg import Observation as ObservationMsg
from e0_msgs.srv import ResetSim
from e0_policy.embodiment import load_embodiment
from e0_ros import interfaces
from e0_ros.config import check, declare_parameters, setting
from e0_ros.conversions import chunk_to_msg, to_ns
from e0_ros.process import run_node
from sim.playback import PlaybackConfig
from sim.scripted import ScriptedSource, make_planner
from sim.simulators import SIMULATORS


@dataclass(frozen=True)
class ExpertsConfig(PlaybackConfig):
    """Settings of the node."""

    simulator: str = setting("maniskill", "whose tasks to plan", choices=SIMULATORS)
    embodiment: str = setting("panda", "embodiment of the chunks")
    lockstep: bool = setting(False, "the first observation after a reset starts the plan, else the episode's START")

    def __post_init__(self) -> None:
        check(self)


class Experts(Node):
    """Answers every observation with one ActionChunk: a window of the plan, or STATUS_NONE."""

    def __init__(self) -> None:
        super().__init__("experts")
        self._config = declare_parameters(self, ExpertsConfig)
        arm = load_embodiment(self._config.embodiment)
        session = f"experts-{secrets.token_hex(4)}"
        self._source = ScriptedSource(make_planner(self._config.simulator, arm), self._config, arm, session)
        self._task = ""
        self._started_ns: int | None = None
        out = interfaces.ACTION_CHUNK
        self._chunks = self.create_publisher(ChunkMsg, out.name, out.qos.profile())
        seen, event = interfaces.OBSERVATION, interfaces.EPISODE_EVENT
        self.create_subscription(ObservationMsg, seen.name, self._on_observation, seen.qos.profile())
        self.create_subscription(EpisodeEvent, event.name, self._on_event, event.qos.profile())
        self.create_service(ResetSim, interfaces.RESET_EXPERT.name, self._on_reset)

    def _on_reset(self, request: ResetSim.Request, response: ResetSim.Response) -> ResetSim.Response:
        """Plan; what was planned before is void, whatever happens."""
        self._started_ns, self._task = None, request.task or self._task
        try:
            plan = self._source.reset(self._task, request.seed)
        except (ValueError, ImportError, RuntimeError) as error:
            response.message = str(error)
            self.get_logger().error(f"no plan: {error}")
            return response
        solved = "solved" if plan.success else "NOT solved"
        response.success, response.instruction = True, plan.instruction
        scene = f"{self._task}, seed {request.seed}"
        response.message = f"privileged open-loop expert: {scene}, {len(plan.rows)} rows, {solved} in its copy"
        self.get_logger().info(response.message)
        return response

    def _on_event(self, msg: EpisodeEvent) -> None:
        self._started_ns = to_ns(msg.header.stamp) if msg.kind == EpisodeEvent.START else None

    def _on_observation(self, msg: ObservationMsg) -> None:
        stamp_ns = to_ns(msg.header.stamp)
        answer = self._source.answer(stamp_ns, self._refusal(msg.status == ObservationMsg.STATUS_OK, stamp_ns))
        self._chunks.publish(chunk_to_msg(answer, self.get_clock().now().nanoseconds))

    def _refusal(self, seen: bool, stamp_ns: int) -> str:
        """Why this observation gets no plan; the plan runs on meanwhile, for nothing in it depends on what is seen."""
        if not seen:
            return "the observation is stale"
        if not self._source.planned:
            return f"no plan; call {interfaces.RESET_EXPERT.name}"
        started = self._started_ns is not None and stamp_ns >= self._started_ns
        return "" if started or self._config.lockstep else "the episode has not started"

    def destroy_node(self) -> None:
        """Free the planner's environment with the node."""
        self._source.close()
        super().destroy_node()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node. Exit status 2: a parameter is wrong."""
    return run_node(Experts, args)


if __name__ == "__main__":
    sys.exit(main())
