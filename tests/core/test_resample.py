from itertools import chain, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from e0_policy.types import Observation, Stale
from e0_ros.core.pairing import SyncConfig
from e0_ros.core.resample import Grid, GridSync
from e0_ros.core.stream import NS_PER_MS as MS

SYNC = SyncConfig(views=("base",), joint_rate_hz=100.0, gripper_rate_hz=10.0)
TWO = SyncConfig(views=("base", "wrist"), joint_rate_hz=100.0, gripper_rate_hz=10.0)


def feed_one(core, sample):
    stamp, stream, value = sample
    add = {"joints": core.add_joints, "gripper": core.add_gripper}.get(stream)
    return (
        core.add_image(stream, stamp, value)
        if add is None
        else add(stamp, np.array([value]) if add == core.add_joints else value)
    )


def feed(core, streams):
    """Give samples `(stamp, stream, value)` in order of their stamps, as a bag does; all results."""
    results = [r for sample in sorted(streams, key=lambda s: s[0]) for r in feed_one(core, sample)]
    return results + core.finish()


def test_the_example_of_the_docstring():
    images = [(t * MS, "base", t) for t in (0, 33, 67, 100)]
    joints = [(t * MS, "joints", float(t)) for t in range(5, 106, 10)]
    frames = feed(GridSync(Grid(50 * MS), SYNC), [*images, *joints, (0, "gripper", 1.0)])
    assert [(f.stamp_ns // MS, f.views["base"], f.view_skew_ns["base"] // MS) for f in frames] == [
        (33, 33, 0),
        (83, 67, -16),
    ]
    assert [f.joint_positions[0] for f in frames] == [33.0, 83.0]
    assert [f.joint_skew_ns // MS for f in frames] == [2, 2]


stamps = st.lists(st.integers(1, 60), min_size=3, max_size=40)


@settings(max_examples=150, deadline=None)
@given(base=stamps, wrist=stamps, joints=stamps, gripper=stamps, period=st.integers(5, 80), start=st.integers(0, 400))
def test_every_frame_obeys_the_rules_whatever_the_streams(base, wrist, joints, gripper, period, start):
    steps = {"base": base, "wrist": wrist, "joints": joints, "gripper": gripper}
    times = {name: np.cumsum(s) * MS for name, s in steps.items()}
    values = [(int(t), n, float(t) if n == "joints" else int(t)) for n, s in times.items() for t in s]
    grid = Grid(period * MS, start * MS, tolerance_ns=50 * MS)
    results = feed(GridSync(grid, TWO), values)
    stamps_ns = [r.stamp_ns for r in results]
    assert all(b - a == period * MS for a, b in pairwise(stamps_ns))
    if stamps_ns:
        assert stamps_ns[0] in times["base"]
        assert stamps_ns[0] >= max(start * MS, *(s[0] for s in times.values()))
    for r in results:
        latest = {n: int(s[s <= r.stamp_ns][-1]) for n, s in times.items()}
        if isinstance(r, Stale):
            continue
        assert {v: r.views[v] for v in TWO.views} == {v: latest[v] for v in TWO.views}
        assert all(r.view_skew_ns[v] == latest[v] - r.stamp_ns and r.view_skew_ns[v] >= -50 * MS for v in TWO.views)
        assert np.isclose(r.joint_positions[0], r.stamp_ns, rtol=1e-12)  # the joints' value is their time
        assert r.joint_skew_ns == np.abs(times["joints"] - r.stamp_ns).min()
        assert (r.gripper_opening, r.gripper_age_ns) == (latest["gripper"], r.stamp_ns - latest["gripper"])


@settings(max_examples=50, deadline=None)
@given(base=stamps, joints=stamps, data=st.data())
def test_the_order_between_streams_does_not_matter(base, joints, data):
    def at(steps, name):
        return [(int(t), name, float(t)) for t in np.cumsum(steps) * MS]

    streams = [at(base, "base"), at(joints, "joints"), [(0, "gripper", 0.5)]]
    expected = feed(GridSync(Grid(20 * MS, hold=True), SYNC), chain(*streams))
    core, results = GridSync(Grid(20 * MS, hold=True), SYNC), []
    while any(streams):
        stream = data.draw(st.sampled_from([s for s in streams if s]))
        results += feed_one(core, stream.pop(0))
    results += core.finish()
    assert [r.stamp_ns for r in results] == [r.stamp_ns for r in expected]
    assert all(type(a) is type(b) and plain(a) == plain(b) for a, b in zip(results, expected, strict=True))


def plain(r):
    return (r.views, r.joint_positions.tolist(), r.gripper_opening) if isinstance(r, Observation) else r


def test_a_camera_that_falls_silent_is_a_gap_unless_held():
    images = [(t * MS, "base", t) for t in (0, 33, 400, 433)]
    rest = [(t * MS, "joints", float(t)) for t in range(0, 440, 10)] + [
        (t * MS, "gripper", 1.0) for t in range(0, 440, 50)
    ]
    frames = feed(GridSync(Grid(50 * MS), SYNC), [*images, *rest])
    assert [type(f) for f in frames[:4]] == [Observation, Observation, Observation, Stale]
    assert frames[3].stream == "base"
    held = feed(GridSync(Grid(50 * MS, hold=True), SYNC), [*images, *rest])
    assert all(isinstance(f, Observation) for f in held)
    assert [f.views["base"] for f in held][3:9] == [33] * 5 + [400]


def regular(name, step_ms, end_ms, value=1.0):
    return [(t * MS, name, value) for t in range(0, end_ms, step_ms)]


def test_the_end_is_no_gap():
    """After the last joint sample there is no frame; images that stop with them are not reported as silent."""
    streams = [*regular("base", 33, 70), *regular("joints", 10, 71), (0, "gripper", 1)]
    assert [f.stamp_ns // MS for f in feed(GridSync(Grid(20 * MS), SYNC), streams)] == [0, 20, 40, 60]


def test_a_reader_that_refuses_makes_the_frame_stale():
    def refuse(value):
        raise ValueError("no numbers")

    core = GridSync(Grid(20 * MS), SYNC, read_joints=refuse)
    results = feed(core, [*regular("base", 20, 50), *regular("joints", 10, 50), *regular("gripper", 30, 50)])
    assert isinstance(results[0], Stale)
    assert results[0].reason == "unreadable: no numbers"
