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
from e0_msgs.msg import ExecutorState
from e0_msgs.msg import Observation as ObservationMsg
from e0_msgs.srv import ResetSim
from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, NoChunk
from e0_ros import interfaces
from e0_ros.config import check, declare_parameters, setting
from e0_ros.conversions import chunk_to_msg, to_ns
from e0_ros.process import run_node
from sim.maniskill_tasks import task_named
from sim.planning import PERIOD_NS, Planner
from sim.playback import Playback, PlaybackConfig

_SOURCE = "scripted"
_UNARMED = (ExecutorState.DISARMED, ExecutorState.STOPPED)


@dataclass(frozen=True)
class ExpertsConfig(PlaybackConfig):
    """Settings of the node."""

    embodiment: str = setting("panda", "embodiment of the chunks")
    lockstep: bool = setting(False, "the first observation after a reset starts the plan, armed or not")

    def __post_init__(self) -> None:
        check(self)


class Experts(Node):
    """Answers every observation with one ActionChunk: a window of the plan, or STATUS_NONE."""

    def __init__(self) -> None:
        super().__init__("experts")
        self._config = declare_parameters(self, ExpertsConfig)
        self._arm = load_embodiment(self._config.embodiment)
        self._planner = Planner()
        self._playback: Playback | None = None
        self._task, self._seed = "", 0
        self._session, self._sequence = f"experts-{secrets.token_hex(4)}", 0
        self._armed_ns: int | None = None
        out = interfaces.ACTION_CHUNK
        self._chunks = self.create_publisher(ChunkMsg, out.name, out.qos.profile())
        seen, state = interfaces.OBSERVATION, interfaces.EXECUTOR_STATE
        self.create_subscription(ObservationMsg, seen.name, self._on_observation, seen.qos.profile())
        self.create_subscription(ExecutorState, state.name, self._on_state, state.qos.profile())
        self.create_service(ResetSim, interfaces.RESET_EXPERT.name, self._on_reset)

    def _on_reset(self, request: ResetSim.Request, response: ResetSim.Response) -> ResetSim.Response:
        """Plan; what was planned before is void, whatever happens."""
        self._playback, self._armed_ns = None, None
        self._task, self._seed = request.task or self._task, request.seed
        try:
            plan = self._planner.plan(self._task, self._seed)
        except (ValueError, ImportError, RuntimeError) as error:
            response.message = str(error)
            self.get_logger().error(f"no plan: {error}")
            return response
        self._playback = Playback(plan.rows, PERIOD_NS, self._config)
        solved = "solved" if plan.success else "NOT solved"
        response.success, response.instruction = True, task_named(self._task).instruction
        response.message = (
            f"privileged open-loop expert: {self._task}, seed {self._seed}, {len(plan.rows)} rows, {solved} in its copy"
        )
        self.get_logger().info(response.message)
        return response

    def _on_state(self, msg: ExecutorState) -> None:
        if msg.mode in _UNARMED:
            self._armed_ns = None
        elif self._armed_ns is None:
            self._armed_ns = to_ns(msg.header.stamp)

    def _on_observation(self, msg: ObservationMsg) -> None:
        stamp_ns = to_ns(msg.header.stamp)
        answer = self._answer(msg.status == ObservationMsg.STATUS_OK, stamp_ns)
        self._sequence += 1
        now_ns = self.get_clock().now().nanoseconds
        self._chunks.publish(chunk_to_msg(answer, now_ns))

    def _answer(self, seen: bool, stamp_ns: int) -> ActionChunk | NoChunk:
        """The plan runs on while observations are stale: nothing in it depends on them."""
        armed = self._armed_ns is not None and stamp_ns >= self._armed_ns
        if not seen:
            reason = "the observation is stale"
        elif self._playback is None:
            reason = f"no plan; call {interfaces.RESET_EXPERT.name}"
        elif not armed and not self._config.lockstep:
            reason = "the executor is not armed"
        elif window := self._playback.answer(stamp_ns):
            return ActionChunk(
                window.rows,
                window.t0_ns,
                PERIOD_NS,
                _SOURCE,
                self._session,
                self._sequence,
                embodiment=self._arm.name,
                joint_names=self._arm.joint_names,
                in_reply_to_ns=stamp_ns,
                seed=self._seed,
            )
        else:
            reason = "the chunk sent last is still good"
        return NoChunk(stamp_ns, reason, _SOURCE, self._session, self._sequence)

    def destroy_node(self) -> None:
        """Free the planner's environment with the node."""
        self._planner.close()
        super().destroy_node()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node. Exit status 2: a parameter is wrong."""
    return run_node(Experts, args)


if __name__ == "__main__":
    sys.exit(main())
