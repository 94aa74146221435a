"""The franka_msgs of a ROS 2 install, or `tests/overlay/franka_msgs` built once into the set-up folder."""

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


def overlay_environment() -> dict[str, str]:
    """Environment of a process that can import franka_msgs, this project and the tests' stubs."""
    environ = dict(os.environ)
    paths = [str(TESTS.parent), str(TESTS)]
    if importlib.util.find_spec("franka_msgs") is None:
        prefix = _built(environ)
        paths.append(str(prefix / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"))
        before = environ.get("AMENT_PREFIX_PATH", "") or sys.prefix
        environ["AMENT_PREFIX_PATH"] = f"{prefix}{os.pathsep}{before}"
        environ["LD_LIBRARY_PATH"] = f"{prefix / 'lib'}{os.pathsep}{environ.get('LD_LIBRARY_PATH', '')}"
    environ["PYTHONPATH"] = os.pathsep.join([*paths, environ.get("PYTHONPATH", "")])
    return environ


def _built(environ: dict[str, str]) -> Path:
    """Prefix of the test package, built if its sources or the interpreter have changed."""
    key = plan.key(TESTS, ["overlay/franka_msgs"], sys.prefix, sys.version)
    prefix = STATE / f"franka_msgs_{key}"
    with plan.only_one(STATE / "lock"):
        if not (prefix / "done").exists():
            kind, python = environment.detect().kind, Path(sys.prefix) / "bin" / "python"
            interface_package.build(
                TESTS / "overlay/franka_msgs", prefix / "build", prefix, python, kind, environ, _run
            )
            (prefix / "done").touch()
    return prefix


def _run(command: list[str], environ: dict[str, str]) -> None:
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
