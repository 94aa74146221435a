"""The graph as users launch it, with the plant without physics in the robot's place: needs no simulator."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from e0_ros.core.bag_reader import Bag
from sim.runs import over_graph

pytestmark = pytest.mark.ros
SMALL = {"simulator": "fr3_plant", "task": "Reach-v0", "size": 64}
JUDGED = {"bridge": {"judge": True, "timeout_s": 60.0}, "chunk_executor": {"lead_ms": 50.0}}


@pytest.mark.parametrize("controller", ["joint_trajectory", "impedance"])
def test_reaches_in_lockstep_the_same_way_twice(tmp_path: Path, controller: str) -> None:
    arguments = {**SMALL, "mode": "lockstep", "controller": controller}
    runs = [over_graph(arguments, range(2), tmp_path / str(i), settings=JUDGED) for i in range(2)]
    for first, second in zip(*runs, strict=True):
        assert (first.success, first.error, first.violations, first.holds) == (True, "", 0, [])
        assert (second.digest, second.steps, second.error) == (first.digest, first.steps, "")
        assert {"bridge", "observation_sync", "experts", "chunk_executor", "evaluator"} <= set(first.cores)
        assert 0 < sum(first.cores.values()) < os.cpu_count() + 0.5


def test_an_episode_is_recorded_with_everything_that_was_said(tmp_path: Path) -> None:
    (episode,) = over_graph({**SMALL, "mode": "lockstep"}, range(1), tmp_path, settings=JUDGED)
    assert episode.lost == 0
    bag, stamps = Bag(Path(episode.bag)), {}
    for message in bag.messages():
        said = bag.decode(message)
        time_ = said.clock if message.topic == "/clock" else getattr(getattr(said, "header", None), "stamp", None)
        if time_ is not None:
            stamps.setdefault(message.topic, []).append(time_.sec * 10**9 + time_.nanosec)
    first = min(stamps["/e0/observation"])  # the still picture before it is told again to each new listener
    ticks = [first + i * 50_000_000 for i in range(episode.steps + 1)]
    for topic in (
        "/clock", "/e0/observation", "/e0/executor_state", "/e0/sim/state", "/franka_gripper/joint_states",
        "/cameras/base/color/image_raw/compressed", "/cameras/wrist/color/image_raw/compressed",
        "/cameras/base/color/camera_info", "/cameras/wrist/color/camera_info",
    ):  # fmt: skip
        assert [t for t in stamps[topic] if t >= first] == ticks, topic
    assert len(stamps["/e0/action_chunk"]) == len(stamps["/joint_trajectory_controller/joint_trajectory"]) == len(ticks)
    joints = [t for t in stamps["/franka/joint_states"] if t >= first]
    assert joints == list(range(first, ticks[-1] + 1, 1_000_000))
    assert len(stamps["/e0/episode_event"]) == 2
