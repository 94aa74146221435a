"""The soak's own parts: what it draws and what it calls growth; and, at full length, a few faults of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest

from e0_ros.core.gello import GelloTeleop
from e0_ros.core.recording import Recording
from tests.faults import soak
from tests.faults.gauges import MIB, Gauges, Sample, Trend, growth, more
from tests.faults.injected import FROZEN, KILLED, KINDS, STILL_S, schedule
from tests.faults.scale import FULL
from tests.faults.teleop_soak import Shifts


def test_a_seed_draws_the_same_faults_and_each_kind_before_any_comes_again() -> None:
    faults = schedule(5, 3 * len(KINDS))
    assert faults == schedule(5, 3 * len(KINDS)) != schedule(6, 3 * len(KINDS))
    for k in range(3):
        assert {fault.kind for fault in faults[k * len(KINDS) : (k + 1) * len(KINDS)]} == set(KINDS)
    many = schedule(5, 100 * len(KINDS))
    assert {fault.node for fault in many if fault.kind == "kill"} == set(KILLED)
    assert {fault.node for fault in many if fault.kind == "freeze"} == set(FROZEN)
    assert max(fault.seconds for fault in many if fault.node == "bridge") == STILL_S
    assert {fault.kind for fault in schedule(5, 100, KINDS[1:])} == set(KINDS[1:])


@pytest.mark.parametrize("mib_per_h", [0.0, 0.5, 30.0])
def test_growth_is_found_within_three_times_its_error(mib_per_h: float) -> None:
    rng, found = np.random.default_rng(1), []
    for _ in range(50):
        noise = np.repeat(rng.normal(0, 0.2 * MIB, 60), 6)  # memory changes seldom
        samples = [
            Sample(5.0 * k, int(mib_per_h * MIB * 5 * k / 3600 + 100 * MIB + noise[k]), 9, 9) for k in range(360)
        ]
        slope, error = growth(samples)
        found.append(abs(slope - mib_per_h) <= 3 * error)
    assert np.mean(found) > 0.9 and 0 < error < 2.0
    assert math.isnan(growth(samples[:10])[0])


def test_the_recording_outlasts_the_soak(tmp_path: Path) -> None:
    """A policy that has nothing more to replay plans nothing, and no fault after that is recovered from."""
    made = soak.graph(tmp_path, False, 7200.0)
    settings = {name: value for process in made.processes for name, value in process.settings.items()}
    with np.load(settings["recording"]) as plan:
        assert len(plan["rows"]) * int(plan["period_ns"]) * 1e-9 >= 3 * 7200.0


def test_a_process_that_was_started_anew_is_another_life(monkeypatch: pytest.MonkeyPatch) -> None:
    gauges, held = Gauges(), {1: 10 * MIB, 2: 50 * MIB}
    monkeypatch.setattr("tests.faults.gauges.sample", lambda pid, at_s: Sample(at_s, held[pid], 3, 4))
    for k in range(100):
        gauges.read({"policy": 1 if k < 30 else 2}, float(k))
    trend = gauges.trends(settle_s=10.0)["policy"]
    assert trend.lives == 2 and trend.first.at_s == 40.0 and trend.whole.mib_per_h == pytest.approx(0.0, abs=1e-6)
    assert "policy                 2" in soak.held({"policy": trend})


def lived(hours: float, mib_per_h: float = 0.0, noise_mib: float = 0.1, files=lambda k: 20 + k % 3) -> Trend:  # type: ignore[no-untyped-def]
    """A process sampled every minute, whose files come and go."""
    rng, gauges, series = np.random.default_rng(4), Gauges(), []
    for k in range(round(60 * hours) + 1):
        memory = int((100 + mib_per_h * k / 60 + rng.normal(0, noise_mib)) * MIB)
        series.append(Sample(60.0 * k, memory, 9, files(k)))
    gauges._series["policy"][1] = series
    return gauges.trends(settle_s=0.0)["policy"]


@pytest.mark.parametrize(
    ("trend", "word", "status"),
    [
        (lived(4.0), "holds", 0),
        (lived(4.0, 0.8), "holds", 0),
        (lived(4.0, 3.0), "GROWS: +2.9", 1),
        (lived(4.0, 3.0, noise_mib=20.0), "holds", 0),
        (lived(4.0, files=lambda k: 20 + k // 20 + k % 3), "GROWS: +", 1),
        (lived(0.9, 30.0), "too short to tell", 0),
        (lived(0.2, 30.0), "too short to tell", 0),
    ],
    ids=["still", "less than allowed", "more than allowed", "not to be told from noise", "files", "short", "few"],
)
def test_what_grows_fails_the_soak_if_its_life_is_long_enough_to_tell(trend: Trend, word: str, status: int) -> None:
    assert word in soak.held({"policy": trend}) and soak.growing({"policy": trend}) == ["policy"] * status


def test_more_threads_are_growth_and_one_that_comes_and_goes_is_none() -> None:
    assert (more([3, 4, 3, 4, 3, 4, 3, 4]), more([3, 3, 4, 4, 5, 5, 6, 6]), more([3])) == (-1, 3, 0)
    trend = replace(lived(2.0), more_threads=2)
    assert trend.grows == "+2 threads"


@pytest.mark.parametrize("growing", [False, True])
def test_growth_is_in_the_exit_status(monkeypatch: pytest.MonkeyPatch, growing: bool) -> None:
    """Of a soak in lock-step whose graph and evaluator are stand-ins."""
    trends = {"policy": lived(4.0, 3.0 * growing)}
    for name in ("Launcher", "start", "graph"):
        monkeypatch.setattr(soak, name, MagicMock())
    soak.start.return_value.run.return_value = Mock(steps=20, error="", violations=0)
    monkeypatch.setattr(soak.Gauges, "trends", lambda self, settle_s: trends)
    assert soak.lockstep(1.0, 0, 0.0) == growing
    monkeypatch.setattr(soak, "Injector", MagicMock())
    soak.Injector.return_value.seen.judged.return_value = (1000, 0)
    soak.Injector.return_value.seen.get_node_names.return_value = []
    assert soak.live(0, [], 1.0, 0.0) == growing


def test_a_soak_that_is_not_alone_says_so_and_an_executors_own_listener_is_no_stranger() -> None:
    names = ["soak", "policy", "chunk_executor", "chunk_executor_delays"]
    seen, nodes = Mock(get_node_names=lambda: names, get_name=lambda: "soak"), Mock()
    nodes.status.return_value = {"policy": None, "chunk_executor": None}
    soak.alone(seen, nodes)
    names.append("bridge")
    with pytest.raises(AssertionError, match="other nodes: bridge"):
        soak.alone(seen, nodes)


@pytest.mark.ros
@pytest.mark.timeout(900)
@pytest.mark.skipif(not FULL, reason="minutes: make soak")
def test_every_kind_of_fault_is_recovered_from(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--seconds", str(10 * len(KINDS)), "--every", "10", "--seed", "3", "--settle", "10"]
    assert soak.main(words) == 0, capsys.readouterr().out


def test_a_shift_of_teleoperation_is_led_judged_and_read_from_its_bag(tmp_path: Path) -> None:
    bench = Shifts(3, tmp_path)
    bench.shift(troubles=1)
    bench.count()
    assert bench.shifts == 1 and bench.engagements >= 1 and bench.led > 300
    assert {"teleop: has taken over; not", "teleop: released on request"} & set(bench.holds)
    assert bench.setpoints == round(bench.seconds * 1000)
    assert bench.messages > 2 * bench.chunks and not list(tmp_path.iterdir())


def test_a_shift_fails_on_an_illegal_set_point(tmp_path: Path) -> None:
    bench = Shifts(3, tmp_path)
    bench.begin()
    bench.run(40)
    bench.end()
    bench.begin()
    bench.driven.judge.judge.restart(bench.driven.home + 1e-3)
    bench.run(40)
    with pytest.raises(AssertionError, match="illegal set-points"):
        bench.end()


def test_a_shift_fails_on_a_bag_that_lacks_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put, seen = Recording.put, iter(range(10**9))
    monkeypatch.setattr(Recording, "put", lambda self, message: next(seen) == 10 or put(self, message))
    bench = Shifts(3, tmp_path)
    bench.begin()
    bench.run(200)
    with pytest.raises(AssertionError, match=r"shift_0 has 23 of 24 messages"):
        bench.end()


def test_a_shift_fails_on_a_hand_that_does_not_get_the_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GelloTeleop, "misalignment", lambda self: "not aligned: ever")
    bench = Shifts(3, tmp_path)
    bench.begin()
    with pytest.raises(AssertionError, match="did not get the arm"):
        bench.align()
