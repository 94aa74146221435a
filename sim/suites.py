"""The suites of the paper: what each needs, and whether it can be run here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

from e0_ros.config import ConfigError, closest
from sim import libero_tasks, robotwin, vlabench
from sim.paper import AVERAGE, paper_tables


@dataclass(frozen=True)
class Suite:
    """A benchmark suite.

    Attributes:
        count: of its tasks.
        arm: robot and what a row commands.
        needs: packages and data.
        missing: what of that is not here, with the cure; empty if all is.
        simulator: whose adapter runs it.
        tasks: of the adapter.
        unproven: why no episode of it was ever run with its adapter; empty: one was.

    """

    name: str
    count: int
    arm: str
    needs: str
    missing: Callable[[], str]
    simulator: str
    tasks: tuple[str, ...]
    unproven: str = ""

    def obstacle(self) -> str:
        """Why it cannot be run here; empty if it can."""
        missing = self.missing()
        return f"untested here: {missing}" if missing else ""

    def told(self) -> str:
        """Whether it can be run here, in words."""
        if obstacle := self.obstacle():
            return f"{obstacle}{'; ' if self.unproven else ''}{self.unproven}"
        return f"untested: {self.unproven}" if self.unproven else f"yes: e0 eval --suite {self.name}"


def suite_named(name: str, python: str = "") -> Suite:
    """A suite that can be run here, by an interpreter of its own if one is given.

    Raises:
        ConfigError: unknown, or it cannot be run; the message has the cure.

    """
    if name not in SUITES:
        raise ConfigError(f"no suite {name!r}{closest(name, SUITES)}; --list-suites shows them")
    suite = seen_by(python)[name]
    if obstacle := suite.obstacle():
        raise ConfigError(f"suite {name}: {obstacle}. It needs: {suite.needs}. Suites that run: {_runnable()}")
    return suite


def seen_by(python: str) -> dict[str, Suite]:
    """The suites with what is missing in another interpreter; empty: in this one.

    Raises:
        ConfigError: that interpreter cannot tell.

    """
    if not python:
        return SUITES
    script = (
        "import json; from sim.suites import SUITES; print(json.dumps({n: s.missing() for n, s in SUITES.items()}))"
    )
    try:
        told = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        last = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        raise ConfigError(f"{python} cannot tell which suites it can run: {' '.join(last)}") from None
    missing = json.loads(told.stdout)
    return {name: replace(suite, missing=partial(missing.__getitem__, name)) for name, suite in SUITES.items()}


def listing(python: str = "") -> str:
    """Every suite with what it needs and whether that is here."""
    lines = []
    for suite in seen_by(python).values():
        lines.append(f"  {suite.name:<16}{suite.count:>3} tasks   {suite.arm}")
        lines.append(f"{'':<18}needs  {suite.needs}")
        lines.append(f"{'':<18}here   {suite.told()}")
    return "\n".join(lines)


def _runnable() -> str:
    return ", ".join(suite.name for suite in SUITES.values() if not suite.missing()) or "none"


def _maniskill() -> str:
    if find_spec("mani_skill") is None:
        return "mani_skill is not installed; `make setup` (extra [sim]) installs it"
    from sim.vulkan import CURE, find

    return "" if find() else f"no usable Vulkan driver; run `python -m sim.vulkan`, or {CURE}"


_LIBERO_NEEDS = (
    "hf-libero 0.1.4, robosuite 1.4.0, bddl 1.0.1, mujoco 3.8.1, EGL or OSMesa (extra [libero]); LIBERO's assets"
)
_OSC = "Panda, OSC_POSE at 20 Hz (6 deltas + gripper)"
_UNPROVEN = "its adapter was written against its public code, and no episode was ever run with it"


def _columns(table: str) -> tuple[str, ...]:
    return tuple(column for column in paper_tables()[table].columns if column != AVERAGE)


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "maniskill5",
            5,
            "Panda, 7 joints + gripper at 20 Hz",
            "mani_skill 3.0.1, numpy 1.26 for the experts, a Vulkan driver; no download",
            _maniskill,
            "maniskill",
            _columns("10"),
        ),
        *(
            Suite(
                f"libero_{name}",
                count,
                _OSC,
                _LIBERO_NEEDS,
                libero_tasks.missing,
                "libero",
                tuple(f"libero_{name}/{i}" for i in range(count)),
            )
            for name, count in (("spatial", 10), ("object", 10), ("goal", 10), ("10", 10), ("90", 90))
        ),
        Suite(
            "vlabench",
            5,
            "Franka, 7 joints + gripper at 10 Hz",
            "VLABench (a clone), dm_control 1.0.22, mujoco 3.2.2, open3d; its objects and scenes from a file host",
            vlabench.missing,
            "vlabench",
            vlabench.TASKS,
            _UNPROVEN,
        ),
        Suite(
            "robotwin",
            50,
            "two arms, 14 joints + 2 grippers",
            "RoboTwin 2.0 (a clone), sapien 3.0.0b1, mplib 0.2.1, pytorch3d, curobo, a GPU; its assets from a hub",
            robotwin.missing,
            "robotwin",
            robotwin.tasks(),
            _UNPROVEN,
        ),
    )
}
"""By name, as `--suite` takes them."""
