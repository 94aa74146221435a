from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.embodiment import load_embodiment
from e0_ros.core.dataset_actions import SetPoints

ARM = load_embodiment("fr3")
MS = 1_000_000


def time(ns):
    return SimpleNamespace(sec=ns // 10**9, nanosec=ns % 10**9)


def chunk(t0_ms, rows, sequence=1, source="policy", period_ms=50, **fields):
    """Rows whose every joint is the given number; the gripper is 1."""
    data = np.array([[value] * 7 + [1.0] for value in rows])
    good = SimpleNamespace(
        status=0, representation=0, embodiment="fr3", joint_names=list(ARM.joint_names), rows=len(rows), columns=8,
        data=data.reshape(-1), t0=time(t0_ms * MS), period_ns=period_ms * MS, source=source, session="s",
        sequence=sequence,
    )  # fmt: skip
    return SimpleNamespace(**{**vars(good), **fields})


def state(committed_ms, sequence=0, mode=2, positions=None, gripper=float("nan"), t0_ms=0):
    return SimpleNamespace(
        mode=mode, source="policy" if sequence else "", session="s" if sequence else "", sequence=sequence,
        committed_until=time(committed_ms * MS), t0=time(t0_ms * MS), joint_names=list(ARM.joint_names),
        positions=np.zeros(7) if positions is None else np.full(7, positions), gripper_opening=gripper,
    )  # fmt: skip


def first(points, t_ms):
    row = points.at(t_ms * MS)
    return None if row is None else row[0]


def test_a_row_is_in_force_from_t0_plus_i_periods_until_another_plan_acts():
    points = SetPoints("commanded", ARM)
    points.add_chunk(chunk(100, [1.0, 2.0, 3.0]))
    points.add_state(110 * MS, state(120, sequence=1, t0_ms=100))
    points.add_chunk(chunk(200, [7.0, 8.0], sequence=2))
    points.add_state(200 * MS, state(210, sequence=1, t0_ms=100))
    points.add_state(210 * MS, state(230, sequence=2, t0_ms=200))
    assert [first(points, t) for t in (119, 120, 149, 150, 200, 229, 230, 249, 250, 1000)] == [
        None, 1.0, 1.0, 2.0, 3.0, 3.0, 7.0, 7.0, 8.0, 8.0
    ]  # fmt: skip


def test_a_refused_plan_never_counts():
    points = SetPoints("commanded", ARM)
    points.add_chunk(chunk(0, [1.0]))
    points.add_state(0, state(0, sequence=1))
    points.add_chunk(chunk(50, [9.0], sequence=2))
    points.add_state(60 * MS, state(60, sequence=1))
    assert first(points, 100) == 1.0


def test_in_hold_the_set_point_is_the_executors_own_and_counted():
    points = SetPoints("commanded", ARM)
    points.add_state(0, state(0, mode=1, positions=5.0))  # armed, the gripper not yet commanded: no set-point
    assert points.start_ns is None
    points.add_chunk(chunk(0, [1.0, 2.0]))
    points.add_state(10 * MS, state(10, sequence=1))
    points.add_state(80 * MS, state(90, mode=3, positions=1.5, gripper=0.0))
    assert first(points, 79) == 2.0
    assert (first(points, 80), points.at(80 * MS)[-1]) == (1.5, 0.0)
    assert [points.held(t * MS) for t in (79, 80)] == [False, True]


def test_a_plan_that_is_heard_of_after_the_state_that_names_it_counts_all_the_same():
    points = SetPoints("commanded", ARM)
    points.add_state(10 * MS, state(10, sequence=1, positions=5.0, gripper=0.0))
    assert first(points, 10) == 5.0
    points.add_chunk(chunk(0, [1.0]))
    points.add_state(30 * MS, state(30, sequence=1))
    assert [first(points, t) for t in (10, 30)] == [1.0, 1.0]
    assert not points.held(10 * MS)


def test_a_plan_that_the_bag_does_not_hold_is_replaced_by_the_executors_reference():
    points = SetPoints("commanded", ARM)
    for t, position in ((10, 5.0), (30, 6.0)):
        points.add_state(t * MS, state(t, sequence=1, positions=position, gripper=0.0))
    assert [first(points, t) for t in (10, 29, 30)] == [5.0, 5.0, 6.0]
    assert points.held(30 * MS)


@pytest.mark.parametrize("mode", [2, 3])
def test_the_executors_reference_is_that_of_its_states_stamp_however_far_it_commits(mode):
    points, lead_ms = SetPoints("commanded", ARM), 100
    points.add_chunk(chunk(700, [9.0], sequence=2))
    for t in range(0, 700, 20):  # its reference moves by 1 rad/s
        points.add_state(t * MS, state(t + lead_ms, sequence=1, mode=mode, positions=t / 1000, gripper=1.0, t0_ms=1))
    for t in range(700, 900, 20):
        points.add_state(t * MS, state(t + lead_ms, sequence=2, positions=t / 1000, gripper=1.0, t0_ms=700))
    assert [first(points, t) for t in (100, 119, 500, 799, 800)] == [0.1, 0.1, 0.5, 0.78, 9.0]
    assert [points.held(t * MS) for t in (500, 799, 800)] == [True, True, False]


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_plan_that_was_to_act_later_is_void_once_the_executor_holds_or_follows_another(chance):
    """The executor commits 90 ms ahead for a machine and 20 for a hand, and brakes at once."""
    said = [(t, state(t + 90, sequence=1, positions=1.0, gripper=1.0)) for t in range(0, 220, 20)]
    said += [(t, state(t + 20, sequence=2, positions=1.0, gripper=1.0)) for t in range(220, 420, 20)]
    said += [(t, state(t + 20, mode=3, positions=5.0, gripper=1.0)) for t in range(420, 500, 20)]
    said += [(t, state(t + 90, sequence=1, positions=5.0, gripper=1.0)) for t in range(500, 700, 20)]
    chance.shuffle(said)
    points = SetPoints("commanded", ARM)
    points.add_chunk(chunk(0, [1.0]))
    points.add_chunk(chunk(0, [2.0], sequence=2))
    for t, message in said:
        points.add_state(t * MS, message)
    told = [first(points, t) for t in range(90, 700)]
    changes = [(t, told[t - 90]) for t in range(91, 700) if told[t - 90] != told[t - 91]]
    assert (told[0], changes) == (1.0, [(240, 2.0), (420, 5.0), (590, 1.0)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6), st.integers(0, 500))
def test_interpolation_stays_between_the_rows_and_meets_them(rows, t_ms):
    points = SetPoints("commanded", ARM, interpolate=True)
    points.add_chunk(chunk(0, rows))
    points.add_state(0, state(0, sequence=1))
    i = min(t_ms // 50, len(rows) - 1)
    pair = rows[i : i + 2]
    assert min(pair) - 1e-12 <= first(points, t_ms) <= max(pair) + 1e-12
    assert np.isclose(first(points, t_ms), np.interp(t_ms, 50 * np.arange(len(rows)), rows))
    assert points.at(t_ms * MS)[-1] == 1.0


def test_teleop_takes_the_target_whether_it_was_followed_or_not():
    points = SetPoints("teleop", ARM)
    points.add_chunk(chunk(0, [1.0], source="teleop", sequence=1, period_ms=40))
    points.add_chunk(chunk(0, [9.0], source="policy", sequence=1))
    points.add_state(0, state(0, sequence=1))
    points.add_chunk(chunk(40, [2.0], source="teleop", sequence=2, period_ms=40))
    assert [first(points, t) for t in (0, 39, 40, 500)] == [1.0, 1.0, 2.0, 2.0]
    assert points.sources == ["teleop"]


def test_teleop_targets_are_interpolated_unless_there_is_a_break():
    points = SetPoints("teleop", ARM, interpolate=True)
    for sequence, (t, value) in enumerate([(0, 0.0), (40, 4.0), (400, 5.0)], 1):
        points.add_chunk(chunk(t, [value], source="teleop", sequence=sequence, period_ms=40))
    assert [first(points, t) for t in (0, 10, 40, 200, 400)] == [0.0, 1.0, 4.0, 4.0, 5.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": 9},
        {"data": np.full(8, np.nan)},
        {"joint_names": [f"panda_joint{i}" for i in range(1, 8)]},
        {"representation": 1},
        {"data": np.zeros(7)},
    ],
)
def test_a_malformed_plan_is_refused(wrong):
    with pytest.raises(ValueError):
        SetPoints("commanded", ARM).add_chunk(chunk(0, [0.0], **wrong))


def test_word_that_there_is_no_plan_is_none():
    points = SetPoints("commanded", ARM)
    points.add_chunk(chunk(0, [], status=1))
    assert points.at(0) is None


def test_a_human_intervenes_from_taking_a_machines_arm_until_a_machine_moves_it_again():
    for signal in ("commanded", "teleop"):
        points = SetPoints(signal, ARM)
        seen = {10: "policy", 20: "policy", 30: "teleop", 40: "", 50: "teleop", 60: "", 70: "policy"}
        for t_ms, source in seen.items():
            said = state(t_ms, sequence=1, mode=2 if source else 3)
            points.add_state(t_ms * MS, SimpleNamespace(**{**vars(said), "source": source}))
        found = [points.intervened(t_ms * MS) for t_ms in (0, 10, 29, 30, 45, 55, 69, 70, 100)]
        assert found == [False, False, False, True, True, True, True, False, False]


def test_a_demonstration_is_no_intervention():
    points = SetPoints("commanded", ARM)
    points.add_state(10 * MS, SimpleNamespace(**{**vars(state(10, sequence=1)), "source": "teleop"}))
    assert not points.intervened(20 * MS)
