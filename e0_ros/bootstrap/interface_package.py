"""Builds a package of messages, services and actions with plain CMake, against the wheels or a sourced install."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from e0_ros.bootstrap import machine
from e0_ros.environment import INSTALL


def build(
    source: Path,
    folder: Path,
    prefix: Path,
    python: Path,
    kind: str,
    environ: Mapping[str, str],
    run: Callable[[list[str], dict[str, str]], object],
) -> None:
    """Configure, build and install a package.

    Args:
        source: the package.
        folder: where to build; removed first.
        prefix: where to install.
        python: interpreter of the environment that the package is for; with wheels its `bin` holds the tools.
        kind: INSTALL, else the wheels of that environment.
        environ: environment of the commands.
        run: runs a command in an environment, and raises if it fails.

    """
    shutil.rmtree(folder, ignore_errors=True)
    seen = machine.probe(str(python), dict(environ))
    if seen is None:
        raise machine.Missing(f"{python} does not run", "make clean-setup setup")
    environment, tools = dict(environ), ""
    options = [f"-DCMAKE_INSTALL_PREFIX={prefix}", f"-DPython3_EXECUTABLE={python}", "-DBUILD_TESTING=OFF",
               f"-DPYTHON_INSTALL_DIR=lib/python{seen.name}/site-packages", "-Wno-dev"]  # fmt: skip
    if kind != INSTALL:
        venv = python.parent.parent
        tools = str(venv / "bin") + os.sep
        environment.update(AMENT_PREFIX_PATH=str(venv), CMAKE_PREFIX_PATH=str(venv))
        environment.update(LD_LIBRARY_PATH=str(venv / "lib"), PATH=f"{venv / 'bin'}:{os.environ['PATH']}")
        options += ["-G", "Ninja", f"-DE0_PYTHON_INCLUDE={seen.include}",
                    f"-DE0_NUMPY_INCLUDE={machine.numpy_include(python)}",
                    f"-DCMAKE_PROJECT_INCLUDE={Path(__file__).with_name('fix_includes.cmake')}"]  # fmt: skip
    run([f"{tools}cmake", "-S", str(source), "-B", str(folder), *options], environment)
    run([f"{tools}cmake", "--build", str(folder), "--parallel"], environment)
    run([f"{tools}cmake", "--install", str(folder)], environment)
