"""Rows of a benchmark: each feeds one control step as it is, and nothing else ever does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, Representation
from e0_ros.config import ConfigError
from e0_ros.core.admission import Refusal
from e0_ros.core.chunk_executor import ChunkExecutor
from e0_ros.core.executor_types import ExecutorConfig, Mode
from e0_ros.core.step_executor import StepExecutor, make_executor

PANDA = load_embodiment("panda")
MS, PERIOD = 1_000_000, 50_000_000
CONFIG = {"embodiment": "panda", "lockstep": True, "output": "step", "step_columns": 7}


class Stepped:
    """An executor and the bridge's ticks around it."""

    def __init__(self, **settings: object) -> None:
        self.executor, self.now, self.sequence = make_executor(ExecutorConfig(**{**CONFIG, **settings})), 10 * PERIOD, 0
        assert isinstance(self.executor, StepExecutor)
        self.see()

    def see(self) -> None:
        self.executor.observe_joints(self.now, PANDA.joint_names, PANDA.home, np.zeros(7))

    def arm(self) -> Stepped:
        assert self.executor.arm(self.now) is None
        return self

    def offer(self, rows: np.ndarray, t0: int | None = None, **fields: object) -> Refusal | None:
        self.sequence += 1
        known = {
            "rows": rows, "t0_ns": self.now if t0 is None else t0, "period_ns": PERIOD, "source": "policy",
            "session": "a", "sequence": self.sequence, "representation": Representation.EE_DELTA_STEP,
            "embodiment": "panda", "in_reply_to_ns": self.now,
        }  # fmt: skip
        return self.executor.offer(ActionChunk(**{**known, **fields}), self.now)

    def tick(self):
        self.see()
        tick = self.executor.tick(self.now)
        self.now += PERIOD
        return tick


def rows(count: int, first: float = 0.0, columns: int = 7) -> np.ndarray:
    """Row i is full of `first + i / 100`; far beyond what an arm's limits would let pass unchanged."""
    return np.repeat(first + np.arange(count)[:, None] / 100, columns, axis=1)


def test_the_example_of_the_docstring() -> None:
    executor = make_executor(ExecutorConfig(**CONFIG))
    executor.observe_joints(0, PANDA.joint_names, PANDA.home, np.zeros(7))
    assert executor.arm(0) is None
    fields = {"representation": Representation.EE_DELTA_STEP, "embodiment": "panda"}
    assert executor.offer(ActionChunk(rows(2), PERIOD, PERIOD, "policy", "a", 1, **fields), PERIOD) is None
    executor.observe_joints(2 * PERIOD, PANDA.joint_names, PANDA.home, np.zeros(7))
    got = [executor.tick(k * PERIOD).row for k in (1, 2)]
    np.testing.assert_array_equal(got, rows(2))
    executor.observe_joints(3 * PERIOD, PANDA.joint_names, PANDA.home, np.zeros(7))
    last = executor.tick(3 * PERIOD)
    assert last.row is None and last.status.mode is Mode.HOLD and "plan exhausted" in last.status.reason


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 8)), min_size=1, max_size=6), st.integers(0, 99))
def test_every_step_gets_the_row_of_its_time_bit_for_bit_or_none(plans: list[tuple[int, int]], seed: int) -> None:
    rng, s = np.random.default_rng(seed), Stepped().arm()
    for count, ticks in plans:
        plan = np.column_stack((rng.normal(0, 100, (count, 6)), rng.random(count)))
        assert s.offer(plan) is None
        for i in range(ticks):
            tick = s.tick()
            if i < count:
                assert tick.row.tobytes() == plan[i].tobytes()
                assert tick.status.gripper_opening == plan[i, -1]
            else:
                assert tick.row is None, "a row is fed once, and the last one never again"
            assert tick.command is None and tick.gripper is None


def test_a_plan_in_the_future_waits_and_the_newest_one_due_counts() -> None:
    s = Stepped().arm()
    assert s.offer(rows(4, 0.1)) is None
    assert s.offer(rows(4, 0.5), t0=s.now + 2 * PERIOD) is None
    assert [round(float(s.tick().row[0]), 2) for _ in range(5)] == [0.1, 0.11, 0.5, 0.51, 0.52]


def test_a_simulated_latency_delays_a_plan_and_its_first_rows_are_past() -> None:
    s = Stepped(latency_ms=100.0).arm()
    assert s.offer(rows(4, 0.1)) is None
    assert [t.row if t.row is None else round(float(t.row[0]), 2) for t in (s.tick() for _ in range(4))] == [
        None, None, 0.12, 0.13,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows_", "fields", "reason"),
    [
        (rows(2), {"representation": Representation.JOINT_POSITION, "joint_names": PANDA.joint_names}, "EE_DELTA_STEP"),
        (rows(2, columns=8), {}, "8 columns; needed are 7"),
        (rows(2), {"joint_names": PANDA.joint_names}, "none with a benchmark's own rows"),
        (rows(2), {"embodiment": "fr3"}, "'fr3'"),
        (rows(2, 0.995), {}, "gripper openings"),
        (rows(2), {"t0_ns": 10 * PERIOD + 20 * MS, "in_reply_to_ns": 0}, "off by"),
    ],
)
def test_a_wrong_chunk_of_the_owner_is_refused_and_held(rows_: np.ndarray, fields: dict, reason: str) -> None:
    s = Stepped().arm()
    refusal = s.offer(rows_, **fields)
    assert refusal and refusal.fault and reason in refusal.reason
    tick = s.tick()
    assert tick.row is None and tick.status.mode is Mode.HOLD and reason in tick.status.reason


def test_rows_of_another_rate_than_the_steps_are_held_not_repeated() -> None:
    s = Stepped().arm()
    assert s.offer(rows(4), period_ns=100 * MS) is None
    s.tick()
    tick = s.tick()
    assert tick.row is None and "100 ms apart, control steps 50 ms" in tick.status.reason


def test_a_human_stop_stands_until_it_is_reset_and_armed() -> None:
    s = Stepped().arm()
    s.offer(rows(9))
    s.tick()
    s.executor.stop()
    assert s.tick().row is None and s.executor.mode is Mode.STOPPED
    assert "stopped" in s.executor.arm(s.now).reason and s.offer(rows(3)) is not None
    assert s.executor.reset_stop() is None and s.executor.mode is Mode.DISARMED
    s.see()
    s.arm()
    assert s.offer(rows(3)) is None and s.tick().row is not None
    s.executor.hold()
    assert s.offer(rows(3)).reason.startswith("hold")


def test_only_the_owner_moves_it_and_a_policy_takes_it_from_a_script() -> None:
    s = Stepped().arm()
    assert s.offer(rows(4, 0.1), source="scripted", session="x") is None
    assert s.offer(rows(4, 0.2), source="replay", session="y").reason == "scripted (session x) owns the arm"
    assert s.offer(rows(4, 0.3)) is None
    assert float(s.tick().row[0]) == 0.3 and s.executor.status(s.now).owner == "policy (session a)"
    s.executor.give_up("policy", "a", "tired")
    assert s.tick().status.reason == "policy: tired"


def test_a_clock_that_jumps_back_and_old_joints_end_it() -> None:
    s = Stepped().arm()
    s.offer(rows(9))
    s.tick()
    s.now -= 3 * PERIOD
    assert s.tick().status.mode is Mode.DISARMED
    late = Stepped().arm()
    late.offer(rows(9))
    late.executor.tick(late.now)
    tick = late.executor.tick(late.now + 2 * PERIOD)
    assert tick.row is None and "ms old" in tick.status.reason


@pytest.mark.parametrize("settings_", [{"lockstep": False}, {"step_columns": 0}, {"output": "joint_trajectory"}])
def test_steps_outside_lockstep_or_with_an_arms_output_are_no_configuration(settings_: dict) -> None:
    with pytest.raises(ConfigError, match="output 'step' needs step_columns above 0 and lockstep"):
        ExecutorConfig(**{**CONFIG, **settings_})


def test_an_executor_with_an_arms_output_refuses_steps() -> None:
    executor = make_executor(ExecutorConfig(embodiment="panda", lockstep=True))
    assert isinstance(executor, ChunkExecutor)
    executor.observe_joints(PERIOD, PANDA.joint_names, PANDA.home, np.zeros(7))
    assert executor.arm(PERIOD) is None
    fields = {"representation": Representation.EE_DELTA_STEP, "embodiment": "panda"}
    refusal = executor.offer(ActionChunk(rows(2), PERIOD, PERIOD, "policy", "a", 1, **fields), PERIOD)
    assert refusal and refusal.fault and "EE_DELTA_STEP" in refusal.reason
