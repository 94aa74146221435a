"""The privileged expert as a source of chunks: what the experts node and the direct loop share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.kinematics import tcp_pose_and_jacobian
from e0_policy.types import ActionChunk, FloatArray, NoChunk, Representation
from e0_ros.core.camera_model import quaternion_xyzw
from sim.demonstration import PERIOD_NS
from sim.playback import Playback, PlaybackConfig

SOURCE = "scripted"
CONTROLS = {"joint_position": Representation.JOINT_POSITION, "ee_pose": Representation.EE_POSE}
"""What rows of its chunks may be, by name."""


@dataclass(frozen=True)
class Seen:
    """What an expert knows of an instant.

    `joint_positions` `(7,)` rad and `gripper_opening` are the observation's; `poses` are the simulator's: `(7,)` each,
    x y z [m], quaternion xyzw in the base frame.
    """

    joint_positions: FloatArray
    gripper_opening: float
    poses: Mapping[str, FloatArray]


class Planner(Protocol):
    """Solves scenes that it knows everything about, one motion at a time, each from rest to rest."""

    def begin(self, task: str, seed: int) -> str:
        """A new episode begins; the instruction of its task.

        Raises:
            ValueError: unknown task.

        """

    def motion(self, seen: Seen) -> FloatArray | None:
        """Rows `(steps, joints + 1)` from what the last motion came to, one per `PERIOD_NS`; None: nothing more."""


def make_planner(simulator: str, arm: Embodiment) -> Planner:
    """The planner of a simulator's tasks."""
    if simulator == "fr3_plant":
        from sim.plant_planner import PlantPlanner

        return PlantPlanner(arm)
    if simulator in ("vlabench", "robotwin"):
        raise ValueError(f"there is no expert for {simulator} here; source:=policy or external")
    if simulator == "libero":
        from sim.libero_expert import LiberoPlanner

        return LiberoPlanner()
    from sim.planning import ManiSkillPlanner

    return ManiSkillPlanner(arm)


def rows_of(simulator: str, control: str) -> Representation:
    """What rows of an expert's chunks are: by name of `CONTROLS`, or a stepped simulator's own.

    Raises:
        ValueError: a stepped simulator's can be nothing else.

    """
    if simulator != "libero":
        return CONTROLS[control]
    if control != "joint_position":
        raise ValueError(f"control is {control}; rows for {simulator} are its own")
    return Representation.EE_DELTA_STEP


class ScriptedSource:
    """Answers observations with windows of a plan that grows by a motion whenever the last one is over.

    Args:
        planner: of the motions.
        config: of the windows.
        arm: that moves.
        session: identifier of this run, `[a-z0-9_-]{1,64}`.
        representation: of the rows; tool poses are those of the planned joints.

    """

    def __init__(
        self,
        planner: Planner,
        config: PlaybackConfig,
        arm: Embodiment,
        session: str,
        representation: Representation = Representation.JOINT_POSITION,
    ) -> None:
        self._planner, self._config, self._arm, self._session = planner, config, arm, session
        self._representation = representation
        self._playback: Playback | None = None
        self._sequence = self._seed = 0
        self._finished = False

    @property
    def begun(self) -> bool:
        """Whether there is an episode to plan."""
        return self._playback is not None

    def reset(self, task: str, seed: int) -> str:
        """Begin an episode; what was planned before is void, whatever happens. Returns the instruction.

        Raises:
            ValueError: unknown task.

        """
        self._playback, self._seed, self._finished = None, seed, False
        instruction = self._planner.begin(task, seed)
        self._playback = Playback(PERIOD_NS, self._config)
        return instruction

    def due(self, stamp_ns: int) -> bool:
        """Whether a motion has to be planned at that stamp, and so `answer` needs what is seen."""
        return self._playback is not None and not self._finished and self._playback.over(stamp_ns)

    def answer(
        self, stamp_ns: int, seen: Seen | None, refusal: str = "", now_ns: Callable[[], int] | None = None
    ) -> ActionChunk | NoChunk:
        """The answer to the observation of that stamp: a window, or why there is none (`refusal` says so first).

        `now_ns` tells when a motion can begin that took time to plan; without it that is at the stamp.
        """
        self._sequence += 1
        if refusal or self._playback is None:
            return self.none(stamp_ns, refusal or "no episode; reset first")
        if seen is not None and self.due(stamp_ns):
            rows = self._planner.motion(seen)
            self._finished = rows is None
            if rows is not None:
                self._playback.add(rows, now_ns() if now_ns else stamp_ns)
        window = self._playback.answer(stamp_ns)
        if window is None:
            return self.none(stamp_ns, "the chunk sent last is still good", keep=True)
        joints = self._representation is Representation.JOINT_POSITION
        return ActionChunk(
            tool_rows(window.rows) if self._representation is Representation.EE_POSE else window.rows,
            window.t0_ns,
            PERIOD_NS,
            SOURCE,
            self._session,
            self._sequence,
            representation=self._representation,
            embodiment=self._arm.name,
            joint_names=self._arm.joint_names if joints else (),
            in_reply_to_ns=stamp_ns,
            seed=self._seed,
        )

    def none(self, stamp_ns: int, reason: str, keep: bool = False) -> NoChunk:
        """Word that there is no new plan in answer to the observation of this stamp."""
        return NoChunk(stamp_ns, reason, SOURCE, self._session, self._sequence, keep)


def tool_rows(rows: FloatArray) -> FloatArray:
    """Rows of joints and opening `(n, 8)` as `Representation.EE_POSE` has them."""
    poses = tcp_pose_and_jacobian(rows[:, :-1])[0]
    turns = np.array([quaternion_xyzw(pose[:3, :3]) for pose in poses])
    return np.column_stack([poses[:, :3, 3], turns, rows[:, -1]])
