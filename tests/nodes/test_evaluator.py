from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor

from e0_msgs.msg import SimState
from e0_msgs.srv import EndEpisode
from e0_policy.files import write_json
from e0_ros import interfaces
from e0_ros.conversions import to_time
from sim.demo import summary, table
from sim.evaluator import Episode, EvaluationError, Evaluator, real_time_factor, start, violations


def episode(found: int, error: str = "") -> Episode:
    return Episode(0, "Reach-v0", 0, error=error, violations=found)


def test_violations_of_a_run_are_the_last_count_and_silence_is_no_verdict():
    assert violations([episode(0), episode(0)]) == 0
    assert violations([episode(0), episode(3)]) == 3
    assert violations([episode(0), episode(-1, error="the graph has stopped")]) == 0
    assert math.isnan(violations([episode(0), episode(-1)]))
    assert math.isnan(violations([]))


@pytest.mark.ros
def test_a_graph_that_is_gone_ends_the_wait_and_is_the_episodes_error():
    def health() -> None:
        raise EvaluationError("the graph has stopped: bridge (-9)")

    evaluator = start("scripted", health)
    try:
        with pytest.raises(EvaluationError, match="bridge"):
            evaluator.wait_ready()
        ended = evaluator.run(0, "Reach-v0", 0, 0)
        assert "bridge" in ended.error and not ended.success and ended.violations == -1
    finally:
        evaluator.close()


@pytest.mark.ros
def test_an_error_leaves_the_take_unlabelled_and_a_graph_that_is_gone_is_asked_nothing(ros: None) -> None:
    asked, gone = list[tuple[str, str]](), threading.Event()

    def answer(request: Any, response: Any) -> Any:
        if isinstance(request, EndEpisode.Request):
            asked.append((request.outcome, request.note))
        response.success = True
        return response

    def health() -> None:
        if gone.is_set():
            raise EvaluationError("the graph has stopped")

    recorder, executor = rclpy.create_node("episode_recorder"), SingleThreadedExecutor()
    services = interfaces.END_EPISODE, interfaces.DISARM
    for service in services:
        recorder.create_service(interfaces.message_class(service.type), service.name, answer)
    executor.add_node(recorder)
    spinner = threading.Thread(target=executor.spin, daemon=True)
    spinner.start()
    evaluator = start("policy", health)
    try:
        while not all(evaluator._callers[service.name].service_is_ready() for service in services):
            evaluator._wait()
        evaluator._finish(Episode(0, "t", 0, error="bridge is silent"))
        gone.set()
        evaluator._finish(Episode(1, "t", 1, error="the graph has stopped"))
        gone.clear()
        evaluator._finish(Episode(2, "t", 2, success=True))
        assert asked == [("unlabelled", "bridge is silent"), ("success", "")]
    finally:
        evaluator.close()
        executor.shutdown()
        spinner.join()
        recorder.destroy_node()


def test_the_demos_table_and_json_never_show_what_is_not_known_as_a_number(tmp_path: Path) -> None:
    unknown = Episode(0, "t", 0, success=True, violations=-1, lost=-1)
    figures = summary([unknown])
    shown = table(figures)
    assert "lost messages        unknown" in shown and "limit violations     not judged" in shown
    assert "lost unknown" in unknown.line()
    write_json(tmp_path / "f.json", figures)
    found = json.loads((tmp_path / "f.json").read_text())
    assert (found["lost_messages"], found["violations"]) == (None, None)
    whole = summary([Episode(0, "t", 0, success=True, violations=0, lost=2)])
    assert "lost messages        2" in table(whole) and "0 (independent judge, 1 kHz)" in table(whole)


def test_the_demos_table_says_how_many_cores_it_took() -> None:
    first = Episode(0, "t", 0, success=True, sim_s=1.0, wall_s=1.0, cores={"bridge": 0.2, "policy": 0.4})
    second = Episode(1, "t", 1, success=True, sim_s=3.0, wall_s=3.0, cores={"bridge": 1.0, "policy": 0.0})
    figures = summary([first, second])
    assert figures["cores_by_process"] == pytest.approx({"bridge": 0.8, "policy": 0.1})
    assert figures["cores"] == pytest.approx(0.9) and "bridge 0.80, policy 0.10" in table(figures)
    unknown = summary([Episode(0, "t", 0, success=True)])
    assert math.isnan(unknown["cores"]) and "processor            unknown" in table(unknown)


def heard(evaluator: Evaluator, late_ms: list[float], skipped_ms: list[float] | None = None, **stamps: int) -> Episode:
    """An episode of states 50 ms apart from `first_ns` on, each so late, each after so much that was skipped in all."""
    first_ns, per_ns = stamps.get("first_ns", 10**15), stamps.get("per_ns", 50_000_000)
    evaluator.sim, evaluator._episode = None, Episode(0, "Reach-v0", 0)
    for step, late in enumerate(late_ms):
        skipped_ns = int(1e6 * skipped_ms[step]) if skipped_ms else 0
        msg = SimState(step=step, reset_id=1, overrun_ns=skipped_ns)
        stamp_ns = first_ns + step * per_ns + skipped_ns
        msg.header.stamp = to_time(stamp_ns)
        evaluator._on_sim(msg, {"source_timestamp": 10**15 + (stamp_ns - first_ns) + int(1e6 * late)})
    return evaluator._episode


@pytest.mark.ros
def test_the_real_time_factor_tells_slow_from_late() -> None:
    rng = np.random.default_rng(0)
    evaluator = start("scripted")
    try:
        late = [0.0, *rng.uniform(0, 90, 79), 95.0]
        kept = heard(evaluator, late)
        assert kept.real_time_factor == 1.0 and kept.late_ms == pytest.approx(late[1:], abs=1e-3)
        assert kept.wall_s == pytest.approx(kept.sim_s + 0.095)
        early_end = heard(evaluator, late[::-1])
        assert early_end.real_time_factor == 1.0
        skipped = heard(evaluator, [20.0] * 81, [0.0] * 40 + [120.0] * 41)
        assert skipped.real_time_factor == pytest.approx(4.0 / 4.12)
        dragged = heard(evaluator, [12.5 * step for step in range(81)])
        assert dragged.real_time_factor == pytest.approx(4.0 / 4.9), "behind by a second and says nothing of it"
        assert real_time_factor([kept, skipped]) == pytest.approx(8.0 / 8.12)
        for pace in (0.5, 2.0):
            stepped = heard(evaluator, [50.0 * step * (1 / pace - 1) for step in range(81)], first_ns=10**9)
            assert stepped.real_time_factor == pytest.approx(pace) and not stepped.late_ms
        assert math.isnan(heard(evaluator, [0.0]).real_time_factor)
    finally:
        evaluator.close()
