"""Which demonstrations `e0 collect` makes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from e0_ros.config import ConfigError, check, setting
from e0_ros.graph import SIMULATORS
from sim import fr3_plant, libero_tasks
from sim.maniskill_tasks import task_named

VIEWS = ("base", "side", "wrist")


@dataclass(frozen=True)
class CollectConfig:
    """The same values give the same folder, whatever the number of processes."""

    tasks: tuple[str, ...] = setting(("PickCube-v1", "PushCube-v1"), "of one simulator, an episode of each in turn")
    views: tuple[str, ...] = setting((), "cameras; empty: all that the simulator has", choices=VIEWS)
    episodes: int = setting(1000, "episodes that are run in all", low=1, high=10_000_000)
    first_seed: int = setting(100_000, "of each task", low=0, high=2**31 - 1)
    size_px: int = setting(128, "width and height of a picture", unit="px", low=16, high=1024)
    max_steps: int = setting(0, "control steps of an episode; 0: the task's own limit", low=0, high=100_000)
    disturbance_rad: float = setting(0.0, "largest push on a joint", unit="rad", low=0.0, high=0.2)
    disturbance_share: float = setting(0.6, "share of the episodes that are disturbed", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        check(self)
        if not self.tasks:
            raise ConfigError("CollectConfig has no tasks; 1 or more needed")
        if other := sorted({task for task in self.tasks if simulator_of(task) != self.simulator}):
            raise ConfigError(
                f"{', '.join(other)} is none of {self.simulator}'s tasks, which {self.tasks[0]} is; a folder is of one "
                "simulator"
            )
        object.__setattr__(self, "views", self.views or (("base", "wrist") if self.step_names else VIEWS))
        if self.simulator == "maniskill":
            for task in self.tasks:
                task_named(task)
        if self.step_names and self.disturbance_rad:
            raise ConfigError(f"disturbance_rad is {self.disturbance_rad:g}; a stepped arm is not pushed: give 0")
        if self.simulator == "libero":
            for task in self.tasks:
                _check_libero(task, self.first_seed)

    @property
    def simulator(self) -> str:
        """Whose tasks they are."""
        return simulator_of(self.tasks[0])

    @property
    def embodiment(self) -> str:
        """The arm that does them."""
        return SIMULATORS[self.simulator].embodiment

    @property
    def step_names(self) -> tuple[str, ...]:
        """Columns of its rows where they are the benchmark's own; empty: they are joint positions."""
        return SIMULATORS[self.simulator].step_names

    @property
    def origin(self) -> str:
        """What makes an episode what it is: everything but how many there are."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "episodes"})

    def job(self, index: int) -> tuple[str, int]:
        """Task and seed of an episode; a task that is named several times has its own seeds each time."""
        turn, place = divmod(index, len(self.tasks))
        task = self.tasks[place]
        times, before = self.tasks.count(task), self.tasks[:place].count(task)
        return task, self.first_seed + turn * times + before


def _check_libero(task: str, seed: int) -> None:
    """Refuse unknown tasks, and what an evaluation begins with, which no training may see."""
    libero_tasks.check_task(task, seed)
    if seed < libero_tasks.FIRST_DRAWN and task != libero_tasks.LIFT:
        drawn = f"give {libero_tasks.FIRST_DRAWN} or more, for scenes that the environment draws"
        raise ConfigError(f"first_seed is {seed}, an initial state of {task}'s evaluation; {drawn}")


def simulator_of(task: str) -> str:
    """Whose task it is."""
    if task == libero_tasks.LIFT or task.startswith("libero_"):
        return "libero"
    return "fr3_plant" if task in fr3_plant.TASKS else "maniskill"
