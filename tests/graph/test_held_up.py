"""A simulator whose process stands still for a while: its arm is led as if it had a controller of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from e0_ros import interfaces
from e0_ros.launcher import Launcher
from e0_ros.resolve import resolve
from tests.faults.watched import Watched, patient, recording

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]
PAUSES_S = (0.08, 0.2, 0.5)
SETTINGS = {
    "bridge": {"judge": True},
    "chunk_executor": {"max_lead_ms": 2000.0, "max_chunk_age_ms": 2000.0},
}


def test_what_was_sent_while_the_simulator_stood_still_is_played_when_it_was_sent(tmp_path: Path) -> None:
    values = {"simulator": "fr3_plant", "task": "Reach-v0", "size": 64, "record": False}
    values |= {"source": "replay", "recording": str(recording(tmp_path / "plan"))}
    with Launcher(patient(resolve("sim", values, SETTINGS)), log_dir=tmp_path / "logs") as nodes:
        seen = Watched()
        try:
            nodes.wait_ready(180.0)
            seen.wait_for(interfaces.ARM)
            for pause_s in PAUSES_S:
                seen.until(lambda: seen.states, "the executor")
                if not seen.runs():
                    seen.arm_it()
                    seen.until(seen.runs, "motion")
                seen.spin(1.0)
                pid = nodes.pid("bridge")
                os.kill(pid, signal.SIGSTOP)
                seen.spin(pause_s)
                os.kill(pid, signal.SIGCONT)
                seen.spin(1.0)
                setpoints, violations = seen.judged()
                assert setpoints > 2000 and violations == 0, f"after {pause_s} s"
        finally:
            seen.close()
