"""Which demonstrations `e0 collect` makes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from e0_ros.config import ConfigError, check, setting
from e0_ros.graph import SIMULATORS
from sim import fr3_plant
from sim.maniskill_tasks import task_named

VIEWS = ("base", "side", "wrist")


@dataclass(frozen=True)
class CollectConfig:
    """The same values give the same folder, whatever the number of processes."""

    tasks: tuple[str, ...] = setting(("PickCube-v1", "PushCube-v1"), "of one simulator, an episode of each in turn")
    views: tuple[str, ...] = setting(VIEWS, "cameras", choices=VIEWS)
    episodes: int = setting(1000, "episodes that are run in all", low=1, high=10_000_000)
    first_seed: int = setting(100_000, "of each task", low=0, high=2**31 - 1)
    size_px: int = setting(128, "width and height of a picture", unit="px", low=16, high=1024)
    max_steps: int = setting(0, "control steps of an episode; 0: the task's own limit", low=0, high=100_000)
    disturbance_rad: float = setting(0.0, "largest push on a joint", unit="rad", low=0.0, high=0.2)
    disturbance_share: float = setting(0.6, "share of the episodes that are disturbed", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        check(self)
        if not self.tasks or not self.views:
            count = f"{len(self.tasks)} tasks and {len(self.views)} views"
            raise ConfigError(f"CollectConfig has {count}; 1 or more needed")
        if self.simulator == "maniskill":
            for task in self.tasks:
                task_named(task)
        elif other := sorted(set(self.tasks) - set(fr3_plant.TASKS)):
            known = ", ".join(fr3_plant.TASKS)
            raise ConfigError(
                f"{', '.join(other)} is none of fr3_plant's tasks ({known}); a folder is of one simulator"
            )

    @property
    def simulator(self) -> str:
        """Whose tasks they are."""
        return "fr3_plant" if any(simulator_of(task) == "fr3_plant" for task in self.tasks) else "maniskill"

    @property
    def embodiment(self) -> str:
        """The arm that does them."""
        return SIMULATORS[self.simulator].embodiment

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


def simulator_of(task: str) -> str:
    """Whose task it is."""
    return "fr3_plant" if task in fr3_plant.TASKS else "maniskill"
