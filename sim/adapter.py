"""What the bridge knows of a simulator. Each simulator implements it in exactly one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from e0_policy.types import FloatArray, ImageArray
from e0_ros.core.camera_model import CameraModel


@dataclass(frozen=True)
class Scene:
    """A scene after a reset. `max_steps` is the benchmark's own limit in control steps."""

    task: str
    seed: int
    instruction: str
    max_steps: int


@dataclass(frozen=True)
class Privileged:
    """What only the evaluator may know: success now, and poses `(7,)` x y z [m], quaternion xyzw in the base frame.

    `way` names the way that was taken so far where a task has several, and is empty before that or if none was.
    """

    success: bool
    poses: Mapping[str, FloatArray] = field(default_factory=dict)
    way: str = ""


class SceneAdapter(Protocol):
    """An arm in a scene, as far as it is watched; the same seed and the same calls give the same bits."""

    @property
    def embodiment(self) -> str:
        """Embodiment identifier, e.g. `panda`."""

    @property
    def views(self) -> tuple[str, ...]:
        """Camera views, the reference view first."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that `reset` knows."""

    @property
    def control_period_ns(self) -> int:
        """Time between two observations of the benchmark: the tick of lock-step."""

    def reset(self, task: str, seed: int) -> Scene:
        """Build the scene of a task.

        Raises:
            ValueError: unknown task; the closest one is named.
        """

    def joint_state(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Positions [rad], velocities [rad/s] and efforts [Nm], each `(joints,)`."""

    def gripper_opening(self) -> float:
        """Opening in [0, 1], 1 is fully open."""

    def start_render(self) -> None:
        """Begin to render every view of the present state; `step` may follow at once."""

    def pictures_ready(self) -> bool:
        """Whether `finish_render` would not have to wait, as far as can be told."""

    def finish_render(self) -> dict[str, ImageArray]:
        """Wait for the images of the last `start_render`, by view."""

    def cameras(self) -> dict[str, CameraModel]:
        """The camera of every view in the present scene: intrinsics, and pose on the base or on the flange."""

    def nominal_cameras(self) -> dict[str, CameraModel]:
        """The same at the places that the cameras have by themselves, whoever moved them."""

    def privileged(self) -> Privileged:
        """Evaluate the present state."""

    def close(self) -> None:
        """Free the simulator."""


@runtime_checkable
class SimAdapter(SceneAdapter, Protocol):
    """One that follows joint set-points. Time moves only in `step`."""

    @property
    def physics_period_ns(self) -> int:
        """Time that one `step` takes; divides `control_period_ns`."""

    def step(self, position: FloatArray, velocity: FloatArray, gripper_opening: float) -> None:
        """Advance by `physics_period_ns` towards a set-point: `(joints,)` rad and rad/s, and the gripper's opening."""


class RowAdapter(SceneAdapter, Protocol):
    """One that takes rows of its benchmark. Time moves only in `act` and `stand`, by `control_period_ns`."""

    @property
    def columns(self) -> int:
        """Columns of its rows."""

    def act(self, row: FloatArray) -> None:
        """One control step with a row `(columns,)` of the benchmark's own controller, the gripper's opening last.

        Raises:
            ValueError: another number of columns.

        """

    def stand(self) -> None:
        """One control step in which nobody moves the arm."""
