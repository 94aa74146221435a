"""A lock-step episode over the graph, recorded and converted: the dataset holds what was published live.

The recorder keeps the pixels of /e0/observation here, so the bag tells what the policy was fed; the dataset is made of
the cameras' own topics.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from e0_ros.convert import convert
from e0_ros.core.bag_reader import Bag
from e0_ros.core.dataset_config import ConvertConfig, Selection
from sim.collect_config import CollectConfig
from sim.collect_episode import take
from sim.runs import over_graph
from tests.core.test_dataset_video import decoded

pytestmark = pytest.mark.ros
GRAPH = {"simulator": "fr3_plant", "task": "Reach-v0", "size": 64, "mode": "lockstep"}


def published(bag: Bag) -> list[dict]:
    """The frames as live: observations, and the row of the plan that the executor named at each tick."""
    said: dict[str, list] = {"/e0/observation": [], "/e0/executor_state": [], "/e0/action_chunk": []}
    for message in bag.messages(said):
        said[message.topic].append(bag.decode(message))

    def row(t: int) -> np.ndarray:
        """The last state names the plan: after the last tick the episode may end before the executor has spoken."""
        state = max((s for s in said["/e0/executor_state"] if ns(s.header) <= t), key=lambda s: ns(s.header))
        named = (state.source, state.session, state.sequence)
        chunk = next(c for c in said["/e0/action_chunk"] if (c.source, c.session, c.sequence) == named)
        index = min((t - time_ns(chunk.t0)) // chunk.period_ns, chunk.rows - 1)
        return chunk.data.reshape(chunk.rows, chunk.columns)[index]

    return [
        {
            "state": [*o.joint_positions, o.gripper_opening],
            "action": row(ns(o.header)),
            "instruction": o.instruction,
            "views": {n: v.data.reshape(64, 64, 3) for n, v in zip(o.view_names, o.views, strict=True)},
        }
        for o in said["/e0/observation"]
        if o.status == 0
    ]


def time_ns(time) -> int:
    return time.sec * 10**9 + time.nanosec


def ns(header) -> int:
    return time_ns(header.stamp)


@pytest.mark.parametrize("images", ["png", "jpeg"])
def test_the_dataset_holds_what_was_published(tmp_path: Path, images: str) -> None:
    settings = {"episode_recorder": {"images": images, "observation_images": True}}
    (episode,) = over_graph(GRAPH, range(1), tmp_path, settings=settings)
    assert episode.error == ""
    frames = published(Bag(Path(episode.bag)))
    assert len(frames) == episode.steps + 1
    codec = "lossless" if images == "png" else "h264"
    config = ConvertConfig(codec=codec)
    report = convert([Path(episode.bag)], tmp_path / "out", config, Selection(outcomes=("all",)))
    assert (report.frames, report.different) == (len(frames), 0)
    data = pq.read_table(tmp_path / "out" / "data/chunk-000/file-000.parquet").to_pydict()
    for feature, name in (("observation.state", "state"), ("action", "action")):
        np.testing.assert_array_equal(np.float32(data[feature]), np.float32([frame[name] for frame in frames]))
    taken = take(CollectConfig(("Reach-v0",), ("base", "wrist"), size_px=64), "Reach-v0", 0, keep=True).taken
    assert taken is not None and len(taken.episode) == len(frames) - 1, "`e0 collect` leaves out the last"
    for table, name in ((taken.episode.proprioception, "state"), (taken.episode.actions, "action")):
        np.testing.assert_array_equal(table, [frame[name] for frame in frames[:-1]])
    for shown, view in zip(taken.images, ("base", "wrist"), strict=True):
        np.testing.assert_array_equal(shown, [frame["views"][view] for frame in frames[:-1]])
    tasks = pq.read_table(tmp_path / "out" / "meta/tasks.parquet").to_pydict()
    assert tasks["task"] == sorted({frame["instruction"] for frame in frames})
    for view in ("base", "wrist"):
        shown = decoded(tmp_path / "out" / f"videos/observation.images.{view}/chunk-000/file-000.mp4").astype(int)
        fed = np.array([frame["views"][view] for frame in frames])
        if images == "png":
            np.testing.assert_array_equal(shown, fed)
        else:
            assert np.abs(shown - fed).mean() < 8
            nearest = [int(np.abs(fed - frame).mean(axis=(1, 2, 3)).argmin()) for frame in shown]
            assert nearest == list(range(len(fed)))
    (facts,) = json.loads((tmp_path / "out" / "meta/e0.json").read_text())["episodes"]
    assert facts["compared"] == len(frames)
