"""The pairing rules, with time driven by hand; ms() counts milliseconds from 100 s."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.types import Observation, Stale
from e0_ros.config import ConfigError
from e0_ros.core.observation_sync import ObservationSync, Result
from e0_ros.core.pairing import SyncConfig

IMAGE = np.zeros((2, 2, 3), np.uint8)
SLOPE = 2.0  # rad/s of the synthetic joint


def ms(milliseconds: float) -> int:
    return 100_000_000_000 + round(milliseconds * 1e6)


def joint_at(milliseconds: float) -> list[float]:
    return [SLOPE * milliseconds / 1000.0, 1.0]


def core(**settings_: Any) -> ObservationSync:
    return ObservationSync(SyncConfig(**settings_))


def feed_state(sync: ObservationSync, start: float, stop: float, step: float = 1.0, delay: float = 0.0) -> list[Result]:
    """Joint states of [start, stop] ms every step, and a gripper state at the start."""
    results = sync.add_gripper(ms(start), 0.5, ms(start + delay))
    for t in np.arange(start, stop + step / 2, step):
        results += sync.add_joints(ms(t), joint_at(t), ms(t + delay))
    return results


def only(results: list[Result]) -> Result:
    assert len(results) == 1
    return results[0]


def observation(results: list[Result]) -> Observation:
    result = only(results)
    assert isinstance(result, Observation), result
    return result


def stale(results: list[Result]) -> Stale:
    result = only(results)
    assert isinstance(result, Stale), result
    return result


def test_an_observation_carries_pairs_interpolation_ages_and_skews() -> None:
    sync = core()
    feed_state(sync, 0, 99, 3)
    assert sync.add_image("wrist", ms(96), IMAGE + 2, ms(99)) == []
    assert sync.add_image("base", ms(100), IMAGE + 1, ms(101)) == []
    got = observation(sync.add_joints(ms(102), joint_at(102), ms(102)))
    assert got.stamp_ns == ms(100)
    assert (got.views["base"] == 1).all() and (got.views["wrist"] == 2).all()
    assert got.view_skew_ns == {"base": 0, "wrist": -4_000_000}
    np.testing.assert_allclose(got.joint_positions, joint_at(100), atol=1e-12)
    assert got.joint_skew_ns == 1_000_000
    assert (got.gripper_opening, got.gripper_age_ns) == (0.5, 100_000_000)


def test_joints_are_interpolated_and_never_the_latest() -> None:
    """The same joint data delayed by 30 ms on the way change nothing; 30 ms in their stamps change the value."""

    def positions(delay: float, shift: float) -> np.ndarray:
        sync = core(views=("base",))
        sync.add_gripper(ms(0), 1.0, ms(0))
        results = []
        arrivals = [(t + shift + delay, "joints", t) for t in range(140)] + [(100.0, "base", 100)]
        for now, kind, t in sorted(arrivals, key=lambda a: (a[0], a[1])):
            if kind == "joints":
                results += sync.add_joints(ms(t + shift), joint_at(t), ms(now))
            else:
                results += sync.add_image("base", ms(t), IMAGE, ms(now))
        return observation(results).joint_positions

    undelayed = positions(0, 0)
    np.testing.assert_allclose(undelayed, joint_at(100))
    np.testing.assert_array_equal(positions(30, 0), undelayed)
    np.testing.assert_allclose(positions(0, 30) - undelayed, [-SLOPE * 0.030, 0.0], atol=1e-12)


def test_it_waits_for_a_joint_sample_at_or_after_the_stamp_and_then_gives_up() -> None:
    sync = core(views=("base",))
    feed_state(sync, 0, 99)
    assert sync.add_image("base", ms(100), IMAGE, ms(101)) == []
    assert sync.waiting == (ms(100), "joints")
    assert sync.poll(ms(143)) == []
    late = stale(sync.poll(ms(144)))
    assert (late.stamp_ns, late.stream) == (ms(100), "joints")
    assert "missing: its newest sample is 45.0 ms old; allowed is 43.0 ms" in late.reason
    assert late.age_ns == 45_000_000
    assert sync.waiting is None and sync.poll(ms(145)) == []


def test_a_stream_that_never_came_is_missing() -> None:
    sync = core()
    sync.add_image("base", ms(0), IMAGE, ms(0))
    got = stale(sync.poll(ms(43)))
    assert (got.stream, got.reason, got.age_ns) == ("joints", "missing: it has sent nothing yet", -1)
    sync = core()
    feed_state(sync, 0, 50)
    sync.add_image("base", ms(40), IMAGE, ms(41))
    assert stale(sync.poll(ms(200))).stream == "wrist"
    sync = core(views=("base",))
    sync.add_joints(ms(0), joint_at(0), ms(0))
    sync.add_image("base", ms(0), IMAGE, ms(0))
    assert stale(sync.poll(ms(240))).stream == "gripper"


def test_the_other_view_must_lie_within_the_tolerance() -> None:
    sync = core(tolerance_ms=15.0)
    feed_state(sync, 0, 120)
    sync.add_image("wrist", ms(84), IMAGE, ms(120))
    assert sync.add_image("base", ms(100), IMAGE, ms(120)) == []
    got = stale(sync.add_image("wrist", ms(117), IMAGE, ms(121)))
    assert got.stream == "wrist" and got.reason.startswith("skewed: its nearest image is 16.0 ms away")


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0, 1.0), st.sampled_from([15.0, 30.0, 60.0]), st.integers(0, 99))
def test_cameras_that_run_free_give_an_observation_for_every_image_at_any_phase(
    phase: float, rate_hz: float, seed: int
) -> None:
    random, period = Random(seed), 1000.0 / rate_hz
    sync = core(camera_rate_hz=rate_hz)
    events = [(t + 3, "joints", float(t)) for t in range(int(24 * period))]
    events += [(t + 3, "gripper", float(t)) for t in range(0, int(24 * period), 60)]
    for frame in range(1, 22):
        for view, shift in (("base", 0.0), ("wrist", phase * period)):
            taken = frame * period + shift + random.uniform(-0.02, 0.02) * period
            events.append((taken + random.uniform(2, 10), view, taken))
    results = []
    for now, name, taken in sorted(events):
        if name in ("base", "wrist"):
            results += sync.add_image(name, ms(taken), IMAGE, ms(now))
        elif name == "joints":
            results += sync.add_joints(ms(taken), joint_at(taken), ms(now))
        else:
            results += sync.add_gripper(ms(taken), 0.5, ms(now))
    good = [r for r in results if isinstance(r, Observation)]
    assert len(good) >= 19 and not [r for r in results if isinstance(r, Stale) and r.stamp_ns > ms(1.5 * period)]
    assert all(abs(r.view_skew_ns["wrist"]) <= 0.6 * period * 1e6 for r in good)


def test_the_nearer_of_two_images_is_taken() -> None:
    sync = core()
    feed_state(sync, 0, 120)
    sync.add_image("wrist", ms(86), IMAGE + 1, ms(120))
    sync.add_image("base", ms(100), IMAGE, ms(120))
    got = observation(sync.add_image("wrist", ms(105), IMAGE + 2, ms(121)))
    assert got.view_skew_ns["wrist"] == 5_000_000 and (got.views["wrist"] == 2).all()


def test_live_an_earlier_image_within_0_4_periods_is_taken_at_once() -> None:
    for skew, at_once in ((13.0, True), (14.0, False)):
        sync = core()
        feed_state(sync, 0, 101)
        sync.add_image("wrist", ms(100 - skew), IMAGE, ms(100))
        assert bool(sync.add_image("base", ms(100), IMAGE, ms(101))) == at_once


def test_a_repeated_stamp_is_frozen() -> None:
    sync = core()
    feed_state(sync, 0, 100)
    for now in range(4):
        sync.add_image("wrist", ms(50), IMAGE, ms(96 + now))
    sync.add_image("base", ms(100), IMAGE, ms(100))
    got = stale(sync.poll(ms(241)))
    assert (got.stream, got.reason) == ("wrist", "frozen: the same stamp came 4 times")


def test_a_frozen_reference_is_reported_without_answering_its_stamp_again() -> None:
    sync = core(views=("base",))
    feed_state(sync, 0, 5)
    observation(sync.add_image("base", ms(5), IMAGE, ms(6)))
    for t in (40, 80, 120):
        assert sync.add_image("base", ms(5), IMAGE, ms(t)) == []
        assert sync.poll(ms(t)) == []
    got = stale(sync.poll(ms(147)))
    assert (got.stamp_ns, got.stream, got.reason) == (ms(147), "base", "frozen: the same stamp came 4 times")
    assert sync.poll(ms(1146)) == []
    assert stale(sync.poll(ms(1147))).stream == "base"


def test_a_silent_reference_is_reported_even_if_it_never_came() -> None:
    sync = core(views=("base",))
    assert sync.poll(ms(0)) == []
    assert sync.poll(ms(140)) == []
    assert stale(sync.poll(ms(141))).reason == "missing: it has sent nothing yet"


@pytest.mark.parametrize("view", ["base", "wrist"])
def test_identical_pixels_under_fresh_stamps_are_frozen_after_a_second(view: str) -> None:
    sync = core()
    results = []
    for t in range(0, 1401, 33):
        sync.add_gripper(ms(t), 0.5, ms(t))
        sync.add_joints(ms(t), joint_at(t), ms(t))
        for name in ("wrist", "base"):
            moving = name != view or t > 1200
            results += sync.add_image(name, ms(t), IMAGE, ms(t), fingerprint=t if moving else 7)
    bad = [r for r in results if isinstance(r, Stale)]
    assert {r.stream for r in bad} == {view}
    assert bad[0].reason.startswith("frozen: identical pixels for 1.02 s")
    assert [(r.stamp_ns - ms(0)) // 1_000_000 for r in bad] == [t for t in range(0, 1201, 33) if t >= 1000]
    assert isinstance(results[-1], Observation)


def test_a_late_reference_image_is_stale() -> None:
    sync = core(views=("base",))
    feed_state(sync, 0, 100)
    got = stale(sync.add_image("base", ms(100), IMAGE, ms(300)))
    assert got.stream == "base" and got.reason == "late: 200.0 ms old on arrival; allowed is 140.0 ms"


def test_a_camera_that_is_known_to_be_late_is_not_late_for_that() -> None:
    """Its stamps count from the exposure; what it takes from there on is allowed beside what others may take."""
    sync = core(views=("base", "wrist"), camera_latency_ms=(200.0, 30.0))
    feed_state(sync, 0, 144)
    assert sync.add_image("wrist", ms(130), IMAGE, ms(145)) == []
    feed_state(sync, 145, 314)
    (made,) = sync.add_image("base", ms(300), IMAGE, ms(315))
    assert isinstance(made, Observation) and made.stamp_ns == ms(100)
    feed_state(sync, 316, 482)
    late = stale(sync.add_image("base", ms(333), IMAGE, ms(483)))
    assert late.reason == "late: 350.0 ms old on arrival; allowed is 340.0 ms"


def test_an_image_behind_an_answered_one_is_late() -> None:
    sync = core(views=("base",))
    feed_state(sync, 0, 101)
    observation(sync.add_image("base", ms(100), IMAGE, ms(101)))
    assert "a newer image has been answered" in stale(sync.add_image("base", ms(67), IMAGE, ms(102))).reason


def test_stamps_in_the_future_are_refused() -> None:
    sync = core(views=("base",))
    feed_state(sync, 0, 100)
    got = stale(sync.add_image("base", ms(600), IMAGE, ms(100)))
    assert got.stream == "base" and "500.0 ms in the future" in got.reason
    sync.add_joints(ms(5000), joint_at(0), ms(101))
    assert sync.streams["joints"].dropped == 1
    assert observation(sync.add_image("base", ms(100), IMAGE, ms(101))).joint_skew_ns == 0


def test_a_gap_in_the_joints_is_not_interpolated_across() -> None:
    sync = core(views=("base",))
    feed_state(sync, 0, 50)
    feed_state(sync, 95, 110)
    got = stale(sync.add_image("base", ms(70), IMAGE, ms(110)))
    assert got.stream == "joints" and "a gap of 45.0 ms around the image" in got.reason


def test_an_old_gripper_state_is_stale() -> None:
    sync = core(views=("base",))
    feed_state(sync, 0, 300)
    assert "its newest sample is 300.0 ms old" in stale(sync.add_image("base", ms(300), IMAGE, ms(300))).reason
    sync.add_gripper(ms(301), 0.2, ms(301))
    sync.add_joints(ms(333), joint_at(333), ms(333))
    assert observation(sync.add_image("base", ms(333), IMAGE, ms(333))).gripper_opening == 0.2


def test_unreadable_values_are_stale_with_their_reason() -> None:
    def broken(value: Any) -> Any:
        raise ValueError("no joint fr3_joint3")

    sync = ObservationSync(SyncConfig(views=("base",)), read_joints=broken)
    feed_state(sync, 0, 100)
    got = stale(sync.add_image("base", ms(100), IMAGE, ms(100)))
    assert (got.stream, got.reason) == ("joints", "unreadable: no joint fr3_joint3")


def test_time_that_goes_back_clears_and_goes_on() -> None:
    sync = core(views=("base",))
    feed_state(sync, 9000, 9100)
    observation(sync.add_image("base", ms(9050), IMAGE, ms(9100)))
    assert sync.add_image("base", ms(9101), IMAGE, ms(9101)) == []
    got = stale(sync.add_joints(ms(0), joint_at(0), ms(0)))
    assert got.stamp_ns == ms(9101) and got.reason == "time went back by 9.101 s"
    feed_state(sync, 0, 100)
    assert observation(sync.add_image("base", ms(50), IMAGE, ms(100))).stamp_ns == ms(50)


def test_lockstep_stamps_that_go_back_clear_and_go_on() -> None:
    sync = core(views=("base",), lockstep=True)
    for start in (9000, 0):
        feed_state(sync, start, start + 50, 10)
        sync.add_gripper(ms(start + 50), 0.5, 0)
        assert observation(sync.add_image("base", ms(start + 50), IMAGE, 0)).stamp_ns == ms(start + 50)


@pytest.mark.parametrize("views", [(), ("base", "base"), ("joints",), ("a/b",), ("",)])
def test_bad_views_are_refused(views: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="views"):
        SyncConfig(views=views)


# Lock-step ticks: the order within a tick is free, and nothing else may matter.

Event = tuple[str, int, Any]


def play(sync: ObservationSync, events: list[Event], now_ns: int = 0) -> list[Result]:
    results: list[Result] = []
    for stream, stamp, value in events:
        if stream == "joints":
            results += sync.add_joints(stamp, value, now_ns)
        elif stream == "gripper":
            results += sync.add_gripper(stamp, value, now_ns)
        else:
            results += sync.add_image(stream, stamp, value, now_ns)
    return results


def same(left: Result, right: Result) -> bool:
    if isinstance(left, Stale) or isinstance(right, Stale):
        return left == right
    return (
        left.stamp_ns == right.stamp_ns
        and left.view_skew_ns == right.view_skew_ns
        and all((left.views[name] == right.views[name]).all() for name in left.views)
        and (left.joint_positions == right.joint_positions).all()
        and (left.gripper_opening, left.gripper_age_ns) == (right.gripper_opening, right.gripper_age_ns)
    )


def tick(index: int) -> list[Event]:
    t = 50 * (index + 1)
    joints = [("joints", ms(s), joint_at(s * s % 97)) for s in range(t - 40, t + 1, 10)]
    images = [(view, ms(t), IMAGE + index) for view in ("base", "wrist")]
    return [*joints, ("gripper", ms(t), index % 5 / 4), *images]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_lockstep_answers_do_not_depend_on_the_order_within_a_tick(data: st.DataObject) -> None:
    plain, shuffled = core(lockstep=True), core(lockstep=True)
    for index in range(3):
        events = data.draw(st.permutations(tick(index)))
        repeated = data.draw(st.lists(st.sampled_from(events), max_size=3))
        expected, got = play(plain, tick(index)), play(shuffled, events + repeated, data.draw(st.integers(0, 10**12)))
        assert observation(expected).stamp_ns == ms(50 * (index + 1))
        assert len(got) == 1 and same(expected[0], got[0])


def random_streams(random: Random) -> dict[str, list[Event]]:
    """Per stream a run of stamps with jitter, gaps and duplicates, ended (but the reference) by one past them all."""
    streams: dict[str, list[Event]] = {}
    for name, step, value in (("base", 33, IMAGE), ("wrist", 33, IMAGE), ("joints", 10, None), ("gripper", 60, 0.5)):
        jitter, gaps = random.choice([0, step // 4, step - 1]), random.choice([0.0, 0.2, 0.7])
        times = [t + random.randint(0, jitter) for t in range(0, 300, step) if random.random() >= gaps]
        times += random.choices(times, k=random.randint(0, 3)) if times else []
        times = sorted(times) + ([900] if name != "base" else [])
        streams[name] = [(name, ms(t), joint_at(t) if value is None else value) for t in times]
    return streams


def interleave(random: Random, streams: dict[str, list[Event]]) -> list[Event]:
    """Any arrival order that keeps each stream's own."""
    order = [name for name, events in streams.items() for _ in events]
    random.shuffle(order)
    iterators = {name: iter(events) for name, events in streams.items()}
    return [next(iterators[name]) for name in order]


def check_bounds(result: Result, config: SyncConfig, streams: dict[str, list[Event]]) -> None:
    if isinstance(result, Stale):
        return
    assert all(abs(skew) <= config.tolerance_ns for skew in result.view_skew_ns.values())
    nearest = min((abs(stamp - result.stamp_ns), stamp) for _, stamp, _ in streams["wrist"])
    if config.lockstep:
        assert abs(result.view_skew_ns["wrist"]) == nearest[0]
    bound = config.patience_periods * 1e9 / config.joint_rate_hz + config.slack_ms * 1e6
    assert 0 <= result.joint_skew_ns <= bound / 2
    assert 0 <= result.gripper_age_ns <= config.patience_periods * 1e9 / config.gripper_rate_hz + config.slack_ms * 1e6
    np.testing.assert_allclose(result.joint_positions, joint_at((result.stamp_ns - ms(0)) / 1e6), atol=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_without_deadlines_any_interleaving_gives_the_same_answers(seed: int) -> None:
    random, config = Random(seed), SyncConfig(lockstep=True, joint_rate_hz=100.0)
    streams = random_streams(random)
    first, second = (play(ObservationSync(config), interleave(random, streams)) for _ in range(2))
    assert [r.stamp_ns for r in first] == sorted({stamp for _, stamp, _ in streams["base"]})
    assert len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    for result in first:
        check_bounds(result, config, streams)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 5, 40, 250]))
def test_live_every_reference_image_is_answered_once_whatever_the_delays(seed: int, delay: int) -> None:
    random, config = Random(seed), SyncConfig(joint_rate_hz=100.0)
    streams = random_streams(random)
    events = [event for of_stream in streams.values() for event in of_stream]
    arrivals = [(event[1] + random.randint(0, delay) * 1_000_000, event) for event in events]
    sync, answers = ObservationSync(config), []
    for now, event in sorted(arrivals, key=lambda arrival: arrival[0]):
        answers += sync.poll(now - 1) + play(sync, [event], now)
    answers += sync.poll(ms(3000))
    stamps = {stamp for _, stamp, _ in streams["base"]}
    assert sorted(r.stamp_ns for r in answers if r.stamp_ns in stamps) == sorted(stamps)
    for result in answers:
        assert result.stamp_ns in stamps or (isinstance(result, Stale) and result.stream == "base")
        check_bounds(result, config, streams)
