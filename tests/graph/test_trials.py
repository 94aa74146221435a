"""`e0 trials` on the plant, as a person runs it on a bench: plan, two policies in a scene, a break, the report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e0_ros.cli import main
from tests.person import Seat

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(600)]
torch = pytest.importorskip("torch", reason="torch is not installed (extra [policy])")

BENCHMARK = """
source: a test
trials: 20
tasks:
  Reach-v0:
    title: Reach
    instruction: move every joint to its mark
    criterion: every joint at its mark
    stages: [half of the way, all of it]
    limit_s: 60
"""


@pytest.fixture
def stop_terminal() -> Iterator[None]:
    """`e0 estop` in a terminal of its own, as the checklist has it."""
    words = [sys.executable, "-m", "e0_ros.cli", "estop"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as stop:
        yield
        assert stop.poll() is None
        stop.terminate()


@pytest.mark.usefixtures("stop_terminal")
def test_two_policies_in_the_same_scene_blind_with_a_break(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], person_at: Seat
) -> None:
    from tests.e0_policy.tiny import tiny_checkpoint

    (tmp_path / "mine.yaml").write_text(BENCHMARK)
    (tmp_path / "watched.yaml").write_text("chunk_executor: {heartbeat_required: true, heartbeat_ms: 10000.0}")
    policies = [f"{name}={tiny_checkpoint(tmp_path / name)}" for name in ("first", "other")]
    out, given = tmp_path / "trials", [word for policy in policies for word in ("--policy", policy)]
    plan = ["--benchmark", str(tmp_path / "mine.yaml"), "--scenes", "1", "--out", str(out), *given]
    assert main(["trials", "plan", *plan, "--set", "other.steps=2"]) == 0
    words = ["simulator:=fr3_plant", "embodiment:=panda", "size:=32", f"settings:={tmp_path / 'watched.yaml'}"]
    run = ["trials", "run", str(out), "sim", *words]

    person = person_at(run)
    person.wait_for("trial 1 of 2: Reach, scene 0: move every joint")
    person.wait_for("the scene is new")
    person.press(" ")
    person.wait_for("s success, f failure")
    person.press("e")
    person.wait_for(r"trial 1 of 2: error")
    person.wait_for("space start")
    person.press(" ")
    person.wait_for("s success, f failure")
    person.press("f")
    person.wait_for("how many stages were reached")
    person.press("9")
    person.press("1")
    person.wait_for(r"trial 1 of 2: failure after [\d.]+ s, 1 of 2 stages")
    person.wait_for("trial 2 of 2")
    person.wait_for("space start")
    person.press("q")
    assert person.end() == 1
    assert main(["trials", "report", str(out)]) == 2
    assert "1 of 2 trials are done; the names are told when all are" in capsys.readouterr().err

    person = person_at(run)
    person.wait_for("trial 2 of 2: Reach, scene 0")
    person.wait_for(r"base +(where it was|cannot be told|MOVED).*view_base.png")
    person.press("o")
    person.wait_for(r"view_base.png")
    person.press(" ")
    person.wait_for("s success, f failure")
    person.press("s")
    person.wait_for(r"trial 2 of 2: success after")
    person.wait_for("all 2 trials are done")
    assert person.end() == 0

    assert main(["trials", "report", str(out), "--videos", "1", "--json", str(tmp_path / "told.json")]) == 0
    shown, told = capsys.readouterr().out, json.loads((tmp_path / "told.json").read_text())
    assert told["blind_trials"] == 2 and set(told["policies"]) == {"first", "other"}
    assert sorted(p["successes"] for p in told["policies"].values()) == [0, 1]
    assert sorted(p["scores"]["Reach-v0"] for p in told["policies"].values()) == [0.5, 1.0]
    assert "0/1 = 0 %" in shown and "1/1 = 100 %" in shown and "only first" in shown
    assert len(list(out.glob("*/videos/*.mp4"))) == 2 and (out / "comparison.html").is_file()
    assert "judged by a person" in (out / "first" / "report.html").read_text()
