"""The simulators by name; each is imported only when it is asked for."""

from __future__ import annotations

from e0_ros.config import ConfigError
from sim.adapter import RowAdapter, SimAdapter
from sim.camera_shift import CameraShift

SIMULATORS = ("maniskill", "fr3_plant", "libero", "vlabench", "robotwin")
STEPPED = ("libero", "robotwin")
"""Those that take rows of their benchmark (`RowAdapter`) and nothing else."""


def make_adapter(
    simulator: str,
    views: tuple[str, ...],
    size_px: tuple[int, int],
    embodiment: str = "panda",
    control_period_ns: int = 50_000_000,
    lag_s: float = 0.0,
    realtime: bool = False,
    shift: CameraShift | None = None,
    object_m: float = 0.0,
) -> SimAdapter:
    """A simulator behind the adapter protocol.

    Args:
        simulator: one of `SIMULATORS`.
        views: camera views, the reference view first.
        size_px: width and height of the views.
        embodiment: arm of fr3_plant; ManiSkill brings its own.
        control_period_ns: time between images of fr3_plant.
        lag_s: first-order lag of fr3_plant's arm.
        realtime: pictures wait for everything else, where they are drawn by the processor.
        shift: how far fixed cameras stand from their places; None or 0 deg: not at all.
        object_m: width of what is between the fingers of fr3_plant.

    Raises:
        ValueError: what the simulator does not know or have (view, size).
        ImportError: the simulator is not installed.

    """
    if simulator == "maniskill":
        try:
            from sim.maniskill import ManiSkillAdapter
        except ImportError as error:
            raise ImportError(f"simulator maniskill cannot be imported: {error}; install the extra [sim]") from None
        adapter: SimAdapter = ManiSkillAdapter(views, *size_px, realtime, moved(shift))
        return adapter
    if moved(shift):
        raise ConfigError(f"{simulator}'s cameras cannot be moved; maniskill's can")
    if simulator == "vlabench":
        from sim.vlabench import VlabenchAdapter

        return VlabenchAdapter(views, *size_px)
    from sim.fr3_plant import Fr3Plant

    return Fr3Plant(views, *size_px, embodiment, control_period_ns, lag_s, object_m)


def moved(shift: CameraShift | None) -> CameraShift | None:
    """A shift, or None if nothing moves."""
    return shift if shift and shift.angle_deg else None


def make_row_adapter(
    simulator: str, views: tuple[str, ...], size_px: tuple[int, int], shift: CameraShift | None = None
) -> RowAdapter:
    """A simulator that takes rows by its benchmark's own protocol.

    Raises:
        ValueError: it has none, or an unknown view.
        ImportError: the simulator is not installed.

    """
    if simulator == "libero":
        from sim.libero import LiberoAdapter

        return LiberoAdapter(views, *size_px)
    if simulator == "robotwin":
        from sim.robotwin import RoboTwinAdapter

        return RoboTwinAdapter(views, *size_px)
    if simulator == "vlabench":
        from sim.vlabench import VlabenchAdapter

        return VlabenchAdapter(views, *size_px)
    if simulator != "maniskill":
        raise ValueError(f"{simulator} has no protocol of its own")
    from sim.maniskill_raw import ManiSkillRaw

    return ManiSkillRaw(views, *size_px, shift=moved(shift))


def official_steps(simulator: str, task: str) -> int:
    """The benchmark's registered limit of a task in control steps; 0 if there is none."""
    if simulator == "libero":
        from sim import libero_tasks

        return libero_tasks.official_steps(task)
    if simulator != "maniskill":
        return 0
    from sim.maniskill_tasks import task_named

    return task_named(task).official_steps


def instructions(simulator: str) -> dict[str, str]:
    """The instruction of each task of a simulator."""
    if simulator == "libero":
        from sim import libero_tasks

        return libero_tasks.instructions()
    if simulator in ("vlabench", "robotwin"):  # theirs are told by each scene
        from sim import robotwin, vlabench

        return dict.fromkeys(vlabench.TASKS if simulator == "vlabench" else robotwin.tasks(), "")
    if simulator == "maniskill":
        from sim.maniskill_tasks import TASKS

        return {name: task.instruction for name, task in TASKS.items()}
    from sim.fr3_plant import TASKS

    return dict(TASKS)
