"""What franka_ros2 brings along on a ROS 2 install, or `tests/overlay/` built once into the set-up folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from e0_ros import environment
from e0_ros.bootstrap import interface_package, plan

TESTS = Path(__file__).resolve().parent
STATE = Path(os.environ.get("E0_TEST_OVERLAYS", TESTS.parent / ".setup" / "overlays"))
PACKAGES = ("franka_msgs", "controller_manager_msgs")


def overlay_environment() -> dict[str, str]:
    """Environment of a process that can import these packages, this project and the tests' stubs."""
    environ = dict(os.environ)
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    prefixes = [_built(package, environ) for package in missing]
    sites = [str(prefix / "lib" / f"python3.{sys.version_info[1]}" / "site-packages") for prefix in prefixes]
    _put_before(environ, "PYTHONPATH", [str(TESTS.parent), str(TESTS), *sites])
    environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    _put_before(environ, "AMENT_PREFIX_PATH", list(map(str, prefixes)))
    _put_before(environ, "LD_LIBRARY_PATH", [str(prefix / "lib") for prefix in prefixes])
    return environ


def _put_before(environ: dict[str, str], name: str, paths: list[str]) -> None:
    environ[name] = os.pathsep.join([*paths, *filter(None, [environ.get(name, "")])])


def _built(package: str, environ: dict[str, str]) -> Path:
    """Prefix of a test package, built if its sources or the interpreter have changed."""
    key = plan.key(TESTS, [f"overlay/{package}"], sys.prefix, sys.version)
    prefix = STATE / f"{package}_{key}"
    with plan.only_one(STATE / "lock"):
        if not (prefix / "done").exists():
            kind, python = environment.detect().kind, Path(sys.prefix) / "bin" / "python"
            interface_package.build(TESTS / "overlay" / package, prefix / "build", prefix, python, kind, environ, _run)
            (prefix / "done").touch()
    return prefix


def _run(command: list[str], environ: dict[str, str]) -> None:
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
