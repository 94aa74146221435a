"""The processes of a bench: Python modules beside this one that do not outlive it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from e0_policy.resources import config_dir
from e0_ros.child import die_with_parent


def environment() -> dict[str, str]:
    """This process's, with the middleware's profile of a graph."""
    return {**os.environ, "FASTDDS_DEFAULT_PROFILES_FILE": str(config_dir() / "fastdds.xml")}


def start(environ: dict[str, str], module: str, *words: str, **pipes: Any) -> subprocess.Popen[str]:
    """Run a module; `pipes` as of `subprocess.Popen`."""
    command = [sys.executable, "-m", module, *words]
    return subprocess.Popen(command, env=environ, text=True, preexec_fn=die_with_parent, **pipes)
