"""The suites of the paper: what each needs, and whether it can be run here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from e0_ros.config import ConfigError, closest
from sim.paper import AVERAGE, paper_tables


@dataclass(frozen=True)
class Suite:
    """A benchmark suite.

    Attributes:
        count: of its tasks.
        arm: robot and what a row commands.
        needs: packages and data.
        missing: what of that is not here, with the cure; empty if all is.
        simulator: whose adapter runs it; empty: no adapter, so that it is untested whatever is here.
        tasks: of the adapter.

    """

    name: str
    count: int
    arm: str
    needs: str
    missing: Callable[[], str]
    simulator: str = ""
    tasks: tuple[str, ...] = ()

    def obstacle(self) -> str:
        """Why it cannot be run here; empty if it can."""
        missing = self.missing()
        if self.simulator:
            return missing
        return f"untested here: this version has no adapter for it{'; also, ' if missing else ''}{missing}"


def suite_named(name: str) -> Suite:
    """A suite that can be run here.

    Raises:
        ConfigError: unknown, or it cannot be run; the message has the cure.

    """
    if name not in SUITES:
        raise ConfigError(f"no suite {name!r}{closest(name, SUITES)}; --list-suites shows them")
    suite = SUITES[name]
    if obstacle := suite.obstacle():
        raise ConfigError(f"suite {name}: {obstacle}. It needs: {suite.needs}. Suites that run: {_runnable()}")
    return suite


def listing() -> str:
    """Every suite with what it needs and whether that is here."""
    lines = []
    for suite in SUITES.values():
        lines.append(f"  {suite.name:<16}{suite.count:>3} tasks   {suite.arm}")
        lines.append(f"{'':<18}needs  {suite.needs}")
        lines.append(f"{'':<18}here   {suite.obstacle() or 'yes: e0 eval --suite ' + suite.name}")
    return "\n".join(lines)


def _runnable() -> str:
    return ", ".join(suite.name for suite in SUITES.values() if suite.simulator)


def _maniskill() -> str:
    if find_spec("mani_skill") is None:
        return "mani_skill is not installed; `make setup` (extra [sim]) installs it"
    from sim.vulkan import CURE, find

    return "" if find() else f"no usable Vulkan driver; run `python -m sim.vulkan`, or {CURE}"


def _libero() -> str:
    found = find_spec("libero")
    places = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    if not places:
        return "libero is not installed: pip install --no-deps hf-libero==0.1.4 in an interpreter of its own"
    assets = [place / "libero" / "assets" for place in places]
    if not any(folder.is_dir() for folder in assets):
        return (
            "its assets are missing: clone github.com/Lifelong-Robot-Learning/LIBERO and link its "
            f"libero/libero/assets to {assets[0]}"
        )
    return ""


def _package(module: str, cure: str) -> Callable[[], str]:
    return lambda: "" if find_spec(module) else f"{module} is not installed: {cure}"


_LIBERO_NEEDS = (
    "hf-libero 0.1.4, robosuite 1.4.0, bddl 1.0.1, mujoco 3.8, EGL or OSMesa; LIBERO's assets (a clone, 206 MB)"
)
_OSC = "Panda, OSC_POSE at 20 Hz (6 deltas + gripper)"
_CLONE = "it is not on PyPI; clone its repository into an interpreter of its own and follow its README"


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
            Suite(f"libero_{name}", count, _OSC, _LIBERO_NEEDS, _libero)
            for name, count in (("spatial", 10), ("object", 10), ("goal", 10), ("10", 10), ("90", 90))
        ),
        Suite(
            "vlabench",
            5,
            "Franka, 7 joints + gripper",
            "VLABench (a clone), dm_control 1.0.22, mujoco 3.2.2, open3d; its objects and scenes from a file host",
            _package("VLABench", _CLONE),
        ),
        Suite(
            "robotwin",
            50,
            "two arms, 14 joints + 2 grippers",
            "RoboTwin 2.0 (a clone), sapien 3.0.0b1, mplib 0.2.1, pytorch3d, curobo, a GPU; its assets from a hub",
            _package("robotwin", _CLONE),
        ),
    )
}
"""By name, as `--suite` takes them."""
