"""experts: the privileged expert as an action source, `scripted`.

It looks at no image: where everything is it reads from /e0/sim/state, whenever a motion is over and the next one is to
be planned.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_msgs.msg import EpisodeEvent, SimState
from e0_msgs.msg import Observation as ObservationMsg
from e0_msgs.srv import ResetSim
from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, FloatArray, NoChunk
from e0_ros import interfaces
from e0_ros.config import check, declare_parameters, setting
from e0_ros.conversions import chunk_to_msg, pose_values, to_ns
from e0_ros.core.policy_session import ERROR
from e0_ros.introductions import Introductions
from e0_ros.process import run_node
from sim.playback import PlaybackConfig
from sim.scripted import CONTROLS, ScriptedSource, Seen, make_planner, rows_of
from sim.simulators import SIMULATORS

_HEARD = (interfaces.OBSERVATION, interfaces.EPISODE_EVENT, interfaces.SIM_STATE)
_STATES = 40
"""States that are kept until the observation of their time has come, and observations until the state of theirs has."""


@dataclass(frozen=True)
class ExpertsConfig(PlaybackConfig):
    """Settings of the node."""

    simulator: str = setting("maniskill", "whose tasks to plan", choices=SIMULATORS)
    embodiment: str = setting("panda", "embodiment of the chunks")
    lockstep: bool = setting(False, "the first observation after a reset starts the plan, else the episode's START")
    control: str = setting("joint_position", "what rows of chunks are", choices=CONTROLS)

    def __post_init__(self) -> None:
        check(self)


class Experts(Node):
    """Answers every observation with one ActionChunk: a window of the plan, or STATUS_NONE.

    Where a motion is due, the answer waits for the simulator's state of the observation's own stamp.
    """

    def __init__(self) -> None:
        super().__init__("experts")
        self._config = declare_parameters(self, ExpertsConfig)
        arm = load_embodiment(self._config.embodiment)
        session = f"experts-{secrets.token_hex(4)}"
        planner, rows = make_planner(self._config.simulator, arm), rows_of(self._config.simulator, self._config.control)
        self._source = ScriptedSource(planner, self._config, arm, session, rows)
        self._task = ""
        self._started_ns: int | None = None
        self._states: dict[int, Mapping[str, FloatArray]] = {}
        self._waiting: list[ObservationMsg] = []
        out = interfaces.ACTION_CHUNK
        self._chunks = self.create_publisher(ChunkMsg, out.name, out.qos.profile())
        for topic, callback in zip(_HEARD, (self._on_observation, self._on_event, self._on_state), strict=True):
            self.create_subscription(interfaces.message_class(topic.type), topic.name, callback, topic.qos.profile())
        self._introductions = Introductions(self)
        self.create_service(ResetSim, interfaces.RESET_EXPERT.name, self._on_reset)

    def _on_reset(self, request: ResetSim.Request, response: ResetSim.Response) -> ResetSim.Response:
        """Begin an episode; what was planned before is void, whatever happens."""
        self._started_ns, self._task = None, request.task or self._task
        self._states.clear()
        self._waiting.clear()
        try:
            response.instruction = self._source.reset(self._task, request.seed)
        except (ValueError, ImportError) as error:
            response.message = str(error)
            self.get_logger().error(f"no expert: {error}")
            return response
        if self._config.lockstep:
            self._introductions.meet(topic.name for topic in _HEARD)
        response.success = True
        response.message = f"privileged expert, which reads {interfaces.SIM_STATE.name}: {self._task}"
        self.get_logger().info(response.message)
        return response

    def _on_event(self, msg: EpisodeEvent) -> None:
        self._started_ns = to_ns(msg.header.stamp) if msg.kind == EpisodeEvent.START else None

    def _on_state(self, msg: SimState) -> None:
        if len(msg.names) != len(msg.poses):
            words = f"{interfaces.SIM_STATE.name}: {len(msg.names)} names for {len(msg.poses)} poses"
            self.get_logger().warning(words, throttle_duration_sec=5.0)
            return
        pairs = zip(msg.names, msg.poses, strict=True)
        self._states[to_ns(msg.header.stamp)] = {name: np.array(pose_values(pose)) for name, pose in pairs}
        while len(self._states) > _STATES:
            del self._states[next(iter(self._states))]
        self._answer_waiting()

    def _on_observation(self, msg: ObservationMsg) -> None:
        msg.views = []
        self._waiting.append(msg)
        self._answer_waiting()

    def _answer_waiting(self) -> None:
        """Answer observations in their order; one that needs a state waits for it until a later one is there, or too
        many wait.
        """
        while self._waiting:
            msg = self._waiting[0]
            stamp_ns = to_ns(msg.header.stamp)
            refusal = self._refusal(msg.status == ObservationMsg.STATUS_OK, stamp_ns)
            poses = self._states.get(stamp_ns)
            late = len(self._waiting) > _STATES or any(stamp > stamp_ns for stamp in self._states)
            if poses is None and not refusal and not late and self._source.due(stamp_ns):
                return
            self._waiting.pop(0)
            seen = Seen(np.array(msg.joint_positions), msg.gripper_opening, poses) if poses is not None else None
            self._chunks.publish(chunk_to_msg(self._answer(stamp_ns, seen, refusal), self._now_ns()))

    def _answer(self, stamp_ns: int, seen: Seen | None, refusal: str) -> ActionChunk | NoChunk:
        try:
            return self._source.answer(stamp_ns, seen, refusal, None if self._config.lockstep else self._now_ns)
        except Exception as error:  # what it is told may be anything, and a planner may stumble over it anywhere
            words = f"{ERROR}: {type(error).__name__}: {error}"
            self.get_logger().error(f"no plan: {words}", throttle_duration_sec=1.0)
            return self._source.none(stamp_ns, words)

    def _now_ns(self) -> int:
        now_ns: int = self.get_clock().now().nanoseconds
        return now_ns

    def _refusal(self, seen: bool, stamp_ns: int) -> str:
        """Why this observation gets no plan; rows that are planned already become due meanwhile."""
        if not seen:
            return "the observation is stale"
        if not self._source.begun:
            return f"no episode; call {interfaces.RESET_EXPERT.name}"
        started = self._started_ns is not None and stamp_ns >= self._started_ns
        return "" if started or self._config.lockstep else "the episode has not started"


def main(args: Sequence[str] | None = None) -> int:
    """Run the node. Exit status 2: a parameter is wrong."""
    return run_node(Experts, args)


if __name__ == "__main__":
    sys.exit(main())
