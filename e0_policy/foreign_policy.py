"""Policies of others, loaded: an openpi server is connected to, LeRobot is started and connected to.

policy = load_foreign("ws://127.0.0.1:8000", "panda", settings={"mapping": "config/policies/openpi_droid.yaml"})

LeRobot runs in an interpreter of its own, started here and reached through a socket that only this user can open.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from e0_policy.embodiment import load_embodiment
from e0_policy.foreign import ForeignSettings, read_foreign
from e0_policy.foreign_features import FeatureError
from e0_policy.policy_connection import UNIX, PolicyConnection, PolicyServerError
from e0_policy.remote_policy import RemotePolicy

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-lerobot" / "bin" / "python"


def load_foreign(
    where: str, embodiment: str, device: str = "auto", settings: Mapping[str, Any] | None = None
) -> RemotePolicy:
    """A policy of others, connected.

    Args:
        where: `ws://HOST:PORT`, or a folder of LeRobot's.
        embodiment: the arm to drive.
        device: torch device of LeRobot's.
        settings: of `ForeignSettings` and `Features`, and `mapping`, a YAML file of such.

    Raises:
        ValueError: a wrong setting, or a folder that is not LeRobot's.
        PolicyServerError: it does not come up; the message has its last words.

    """
    found = read_foreign(where, settings)
    if not (found.features.embodiment or embodiment):
        raise FeatureError(f"{where} does not say whose rows it predicts: set embodiment, e.g. --set embodiment=fr3")
    how, arm = found.settings, load_embodiment(found.features.embodiment or embodiment)
    if found.folder is None:
        connection = PolicyConnection(where, how.timeout_s, how.first_timeout_s, how.api_key)
        connection.metadata(how.start_s)
        return RemotePolicy(connection, found.features, arm, found.digests()[0])
    child = LeRobotProcess(found.folder.folder, device, how)
    connection = PolicyConnection(child.address, how.timeout_s, how.first_timeout_s)
    policy = RemotePolicy(connection, found.features, arm, found.digests()[0], how.seed, child.close)
    try:
        child.wait(connection)
    except PolicyServerError:
        policy.close()
        raise
    return policy


class LeRobotProcess:
    """`e0_policy.lerobot_server` in LeRobot's interpreter; it ends with this process, however that ends.

    Raises:
        FeatureError: there is no such interpreter.

    """

    def __init__(self, folder: Path, device: str, settings: ForeignSettings) -> None:
        self._own = Path(tempfile.mkdtemp(prefix="e0-lerobot-"))
        self.address = f"{UNIX}{self._own / 'socket'}"
        self._log = self._own / "log"
        words = [interpreter(settings.python), "-m", "e0_policy.lerobot_server", str(folder.resolve()), "--until-eof"]
        words += ["--owned", str(self._own)]
        words += ["--address", self.address, "--device", device, "--threads", str(settings.threads)]
        words += ["--online"] if settings.online else []
        for name, value in (("tokenizer", settings.tokenizer), ("vlm_model_name", settings.vlm)):
            words += ["--set", f"{name}={value}"] if value else []
        self._settings = settings
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                words, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=_environment()
            )

    def wait(self, connection: PolicyConnection) -> None:
        """Until it answers.

        Raises:
            PolicyServerError: it ended, or is not up in time.

        """
        deadline_s = time.monotonic() + self._settings.start_s
        while True:
            try:
                connection.metadata()
                return
            except PolicyServerError:
                status = self._process.poll()
                if status is not None or time.monotonic() > deadline_s:
                    ended = "did not come up" if status is None else f"ended with status {status}"
                    raise PolicyServerError(f"LeRobot's process {ended}; it said: {self.last_words()}") from None
                time.sleep(0.1)

    def last_words(self) -> str:
        """The end of its output."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.is_file() else []
        return " | ".join(line.strip() for line in lines[-3:]) or "nothing"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        shutil.rmtree(self._own, ignore_errors=True)


def interpreter(given: str = "") -> str:
    """LeRobot's interpreter.

    Raises:
        FeatureError: there is none.

    """
    if given:
        if not Path(given).is_file():
            raise FeatureError(f"python is {given!r}, which is no file; LeRobot's interpreter is needed")
        return given
    if VENV.is_file():
        return str(VENV)
    if find_spec("lerobot"):
        return sys.executable
    raise FeatureError(
        f"LeRobot has no interpreter here: make lerobot-venv makes {VENV.parents[1].name}, or name one with "
        "--set python=PATH"
    )


def _environment() -> dict[str, str]:
    path = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)}
