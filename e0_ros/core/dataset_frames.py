"""An episode's frames out of its bag: observations, actions and instructions, by the cores of the live graph.

Only the topics named here are read, so nothing else, and no privileged topic, can reach a dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.types import FloatArray, ImageArray, Observation
from e0_ros.core.bag_reader import Bag, BagMessage, BagReadError
from e0_ros.core.dataset_actions import SetPoints
from e0_ros.core.dataset_bag import BagInfo, view_topics
from e0_ros.core.dataset_config import ConvertConfig
from e0_ros.core.decode import decode_compressed, decode_raw, resize_with_pad
from e0_ros.core.joint_names import gripper_opening, pick_joints
from e0_ros.core.observation_sync import ObservationSync
from e0_ros.core.resample import Grid, GridSync, Result
from e0_ros.core.step_rows import StepPoints
from e0_ros.core.take import STAMPED_BYTES, Gatherer
from e0_ros.core.take import stamp_ns as header_ns
from e0_ros.core.traces import stamp_ns
from e0_ros.interfaces import (
    ACTION_CHUNK,
    EPISODE_EVENT,
    EXECUTOR_STATE,
    GRIPPER_STATES,
    INSTRUCTION,
    JOINT_STATES,
    OBSERVATION,
    SIM_STEP,
)

NS_PER_S = 1_000_000_000
STATES = (JOINT_STATES.name, GRIPPER_STATES.name)
SIGNALS = (
    *(ACTION_CHUNK.name, EPISODE_EVENT.name, EXECUTOR_STATE.name, INSTRUCTION.name, OBSERVATION.name),
    SIM_STEP.name,
)


@dataclass(frozen=True)
class Live:
    """What /e0/observation said at a stamp: positions and opening, the skews, and the instruction."""

    joint_positions: FloatArray
    gripper_opening: float
    view_skew_ns: tuple[int, ...]
    instruction: str

    def same(self, frame: Observation, views: tuple[str, ...]) -> bool:
        """Whether a frame holds the very same numbers."""
        return (
            np.array_equal(self.joint_positions, frame.joint_positions)
            and self.gripper_opening == frame.gripper_opening
            and self.view_skew_ns == tuple(frame.view_skew_ns[v] for v in views)
        )


class EpisodeReader:
    """Reads a bag once. `results` gives frames in order; `set_points` and `live` grow ahead of them.

    Args:
        at_observations: frames lie at the observations' stamps (else on a grid).
        gatherer: takes in what a verdict on the take needs, in the same pass; None: nobody judges.

    """

    def __init__(
        self,
        bag: Bag,
        info: BagInfo,
        arm: Embodiment,
        config: ConvertConfig,
        at_observations: bool,
        gatherer: Gatherer | None = None,
    ) -> None:
        self._bag, self._arm, self._gatherer = bag, arm, gatherer
        views = config.views or info.views
        self.views = views
        self._height = config.image_height or info.image_height
        self._width = config.image_width or info.image_width
        self._topics = {view_topics(bag, view): view for view in views}
        self._sync = replace(info.sync, views=views, lockstep=True)
        self._at_observations = at_observations
        self._grid = Grid(
            period_ns=NS_PER_S // config.fps,
            tolerance_ns=round(config.tolerance_ms * 1e6),
            hold=config.gaps == "hold",
        )
        self.step_names = () if config.action == "measured_next" else info.step_names
        self.set_points: SetPoints | StepPoints = (
            StepPoints(info.step_names)
            if info.step_names
            else SetPoints(config.action, arm, config.action_rows == "interpolate")
        )
        self.live: dict[int, Live] = {}
        self.start_ns = self.end_ns = self.last_ns = 0
        self._instructions: list[tuple[int, str]] = [(0, info.instruction)]
        self._core: ObservationSync | GridSync | None = None

    def results(self) -> Iterator[Result]:
        """Frames of the episode with their images, and what could not be a frame.

        Raises:
            BagReadError: damage, or a message that contradicts its definition.

        """
        judged = self._gatherer.topics if self._gatherer is not None else ()
        sampled = {*self._topics, *STATES}
        # as written: in lock-step log times are those of /clock, which tells the order of topics only coarsely
        for message in self._bag.messages({*sampled, *SIGNALS, *judged}, as_written=True):
            if self._gatherer is not None and message.topic in judged:
                self._gatherer.add(message, self._bag.decode)
            if message.topic in SIGNALS:
                self._signal(message)
            elif message.topic in sampled:
                yield from self._sample(message)
        if isinstance(self._core, GridSync):
            yield from self._core.finish()

    def instruction(self, t: int) -> str:
        """The instruction in force at `t`."""
        return next((text for since_ns, text in reversed(self._instructions) if since_ns <= t), "")

    def _sample(self, message: BagMessage) -> list[Result]:
        if len(message.data) < STAMPED_BYTES:
            return []
        stamp = header_ns(message.data)
        self.last_ns = max(self.last_ns, stamp)
        core = self._core or self._begin()
        if isinstance(core, GridSync):
            add: dict[str, Callable[..., list[Result]]] = {STATES[0]: core.add_joints, STATES[1]: core.add_gripper}
            if message.topic in add:
                return add[message.topic](stamp, message)
            return core.add_image(self._topics[message.topic], stamp, message)
        if message.topic in STATES:
            give = core.add_joints if message.topic == STATES[0] else core.add_gripper
            return give(stamp, message, stamp)
        return core.add_image(self._topics[message.topic], stamp, message, stamp)

    def _begin(self) -> ObservationSync | GridSync:
        """The core that makes frames: by now the episode's start is known, if the bag tells it."""
        read = (self._read_image, self._read_joints, self._read_gripper)
        core: ObservationSync | GridSync = (
            ObservationSync(self._sync, *read)
            if self._at_observations
            else GridSync(replace(self._grid, start_ns=self.start_ns), self._sync, *read)
        )
        self._core = core
        return core

    def _signal(self, message: BagMessage) -> None:
        said = self._bag.decode(message)
        try:
            if message.topic in (ACTION_CHUNK.name, EXECUTOR_STATE.name, SIM_STEP.name):
                self._commanded(message.topic, said)
            elif message.topic == OBSERVATION.name:
                self._observed(said)
            elif message.topic == EPISODE_EVENT.name:
                self._event(said)
            elif not self.live:
                self._instruct(message.log_ns, said.data)
        except ValueError as error:
            raise BagReadError(f"{self._bag.path}: {message.topic} at {message.log_ns} ns: {error}") from None

    def _commanded(self, topic: str, said: Any) -> None:
        points = self.set_points
        if isinstance(points, StepPoints):
            if topic == SIM_STEP.name:
                points.add_step(stamp_ns(said), said)
        elif topic == ACTION_CHUNK.name:
            points.add_chunk(said)
        elif topic == EXECUTOR_STATE.name:
            points.add_state(stamp_ns(said), said)

    def _event(self, said: Any) -> None:
        if said.kind == 0:
            self.start_ns = stamp_ns(said)
            self._instruct(self.start_ns, said.instruction)
        else:
            self.end_ns = stamp_ns(said)

    def _observed(self, said: Any) -> None:
        if said.status != 0:
            return
        skews = dict(zip(said.view_names, (int(s) for s in said.view_skew_ns), strict=True))
        self._instruct(stamp_ns(said), said.instruction)
        self.live[stamp_ns(said)] = Live(
            np.array(said.joint_positions, np.float64),
            float(said.gripper_opening),
            tuple(skews.get(view, -1) for view in self.views),
            said.instruction,
        )

    def _instruct(self, since_ns: int, text: str) -> None:
        if text and text != self._instructions[-1][1]:
            self._instructions.append((since_ns, text[:512]))

    def _read_image(self, view: str, message: BagMessage) -> ImageArray:
        said = self._decoded(message)
        if message.type.endswith("CompressedImage"):
            image = decode_compressed(said.format, said.data)
        else:
            image = decode_raw(said.encoding, said.height, said.width, said.step, said.is_bigendian, said.data)
        return resize_with_pad(image, self._height, self._width)

    def _read_joints(self, message: BagMessage) -> FloatArray:
        said = self._decoded(message)
        return pick_joints(said.name, said.position, self._arm.joint_names)

    def _read_gripper(self, message: BagMessage) -> float:
        said, arm = self._decoded(message), self._arm
        return gripper_opening(said.name, said.position, arm.gripper_joint_names, arm.gripper_width_m)

    def _decoded(self, message: BagMessage) -> Any:
        return self._bag.decode(message)
