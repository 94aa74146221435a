"""The ManiSkill tasks on offer. A new one is a row here and, for an expert, a solution in `sim.solutions`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from e0_ros.config import closest


@dataclass(frozen=True)
class Task:
    """Instruction, limits in control steps of 50 ms, and the expert by its name in `sim.solutions`.

    `max_steps` leaves time for the experts; the registered limit of ManiSkill, `official_steps`, ends before many of
    them do. `environment` is ManiSkill's name of it where ours differs; a `scattered` task starts with the arm where
    `sim.scattered` puts it, to demonstrate recoveries. `object_name` and `goal_name` are actors: what is moved, and
    what tells where to.
    """

    instruction: str
    max_steps: int
    official_steps: int
    solver: str
    object_name: str
    goal_name: str
    environment: str = ""
    scattered: bool = False


TASKS = {
    "PickCube-v1": Task(
        "pick up the red cube and hold it at the green sphere", 200, 50, "pick_cube", "cube", "goal_site"
    ),
    "PushCube-v1": Task(
        "push the blue cube onto the red and white target", 200, 50, "push_cube", "cube", "goal_region"
    ),
    "StackCube-v1": Task("put the red cube on top of the green cube", 300, 50, "stack_cube", "cubeA", "cubeB"),
    "PegInsertionSide-v1": Task(
        "pick up the peg and insert it into the hole of the box",
        400,
        100,
        "insert_peg",
        "peg_0",
        "box_with_hole_0",
    ),
    "PlugCharger-v1": Task(
        "pick up the charger and plug it into the receptacle", 500, 200, "plug_charger", "charger", "receptacle"
    ),
    "PullCube-v1": Task(
        "pull the blue cube onto the red and white target", 200, 50, "pull_cube", "cube", "goal_region"
    ),
    "LiftPegUpright-v1": Task("lift the peg and stand it upright", 300, 50, "lift_peg_upright", "peg", "peg"),
}


for _name in ("PickCube", "PushCube", "StackCube"):
    TASKS[f"{_name}Scattered-v1"] = replace(TASKS[f"{_name}-v1"], environment=f"{_name}-v1", scattered=True)


def task_named(name: str) -> Task:
    """Look up a task.

    Raises:
        ValueError: unknown name; the closest one is named.

    """
    if name not in TASKS:
        raise ValueError(f"no ManiSkill task {name!r}{closest(name, TASKS)}")
    return TASKS[name]
