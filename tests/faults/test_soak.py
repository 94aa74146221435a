"""The soak's own parts: what it draws and what it calls growth; and, at full length, a few faults of it."""

from __future__ import annotations

import math
from unittest.mock import Mock

import numpy as np
import pytest

from tests.faults import soak
from tests.faults.gauges import MIB, Gauges, Sample, growth
from tests.faults.injected import FROZEN, KILLED, KINDS, schedule
from tests.faults.scale import FULL


def test_a_seed_draws_the_same_faults_and_each_kind_before_any_comes_again() -> None:
    faults = schedule(5, 3 * len(KINDS))
    assert faults == schedule(5, 3 * len(KINDS)) != schedule(6, 3 * len(KINDS))
    for k in range(3):
        assert {fault.kind for fault in faults[k * len(KINDS) : (k + 1) * len(KINDS)]} == set(KINDS)
    many = schedule(5, 100 * len(KINDS))
    assert {fault.node for fault in many if fault.kind == "kill"} == set(KILLED)
    assert {fault.node for fault in many if fault.kind == "freeze"} == set(FROZEN)
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


def test_a_process_that_was_started_anew_is_another_life(monkeypatch: pytest.MonkeyPatch) -> None:
    gauges, held = Gauges(), {1: 10 * MIB, 2: 50 * MIB}
    monkeypatch.setattr("tests.faults.gauges.sample", lambda pid, at_s: Sample(at_s, held[pid], 3, 4))
    for k in range(100):
        gauges.read({"policy": 1 if k < 30 else 2}, float(k))
    trend = gauges.trends(settle_s=10.0)["policy"]
    assert trend.lives == 2 and trend.first.at_s == 40.0 and trend.whole.mib_per_h == pytest.approx(0.0, abs=1e-6)
    assert "policy                 2" in soak.held({"policy": trend})


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
