"""What `e0 convert` writes is what training reads: the same numbers, images and instructions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from e0_policy.dataset import DatasetError
from e0_policy.lerobot_source import LeRobotSource
from e0_policy.train_config import from_mapping
from e0_policy.train_setup import load_data
from e0_ros.convert import convert
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.synthetic_episode import MS, START_NS, SyntheticEpisode
from tests.core.test_dataset_video import decoded

EPISODE = SyntheticEpisode(seconds=1.0, joint_hz=200.0, lockstep=True)


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    for i, instruction in enumerate(("reach the left mark", "reach the right mark", "reach the left mark")):
        replace(EPISODE, name=f"take{i}", seed=i, instruction=instruction).write(folder / "bags")
    convert([folder / "bags"], folder / "out", ConvertConfig(), Selection())
    return folder / "out"


def test_the_loader_gives_what_the_converter_wrote(converted):
    source, arm = LeRobotSource(converted), json.loads((converted / "meta/e0.json").read_text())
    assert source.embodiment == "fr3" and source.period_ns == 50_000_000 and source.views == EPISODE.views
    assert source.action_names == (*arm["joint_names"], "gripper")
    assert sorted(e.instruction for e in source.episodes) == ["reach the left mark"] * 2 + ["reach the right mark"]
    rows = pq.read_table(converted / "data/chunk-000/file-000.parquet").to_pydict()
    for name, tables in (("observation.state", "proprioception"), ("action", "actions")):
        got = np.concatenate([getattr(e, tables) for e in source.episodes])
        np.testing.assert_array_equal(got.astype(np.float32), np.array(rows[name], np.float32))
    for view in source.views:
        frames = decoded(converted / f"videos/observation.images.{view}/chunk-000/file-000.mp4")
        places = [(e, t) for e, episode in enumerate(source.episodes) for t in range(len(episode))]
        assert len(frames) == len(places) == 63
        for number in (62, 0, 41, 20, 21):
            np.testing.assert_array_equal(source.images(*places[number])[view], frames[number])


def test_a_lossless_dataset_gives_back_every_pixel(tmp_path):
    replace(EPISODE, images="png").write(tmp_path / "bags")
    convert([tmp_path / "bags"], tmp_path / "out", ConvertConfig(codec="lossless"), Selection())
    source = LeRobotSource(tmp_path / "out")
    for t in (0, 7, 20):
        for view, image in source.images(0, t).items():
            np.testing.assert_array_equal(image, EPISODE.image(view, START_NS + t * 50 * MS))


def test_training_reads_it(converted, tmp_path):
    model = {"preset": "nano", "views": list(EPISODE.views), "image_size": 32}
    values = {"model": model, "data": str(converted), "cache_dir": str(tmp_path), "constant_dimensions": "hold"}
    data = load_data(from_mapping(values, "test"), None)
    inputs, targets = data.dataset.batch(range(len(data.dataset)))
    assert len(inputs.images) == 42 and inputs.view_mask.all() and inputs.images.std() > 1
    assert targets.mask[:, :, :8].sum() == 8 * (42 * 8 - 2 * 28), "rows behind the end of an episode are masked"


def test_without_the_last_file_it_is_not_whole(converted, tmp_path):
    (tmp_path / "part").mkdir()
    for path in converted.iterdir():
        (tmp_path / "part" / path.name).symlink_to(path)
    (tmp_path / "part/meta").unlink()
    (tmp_path / "part/meta").mkdir()
    for path in (converted / "meta").iterdir():
        if path.name != "e0.json":
            (tmp_path / "part/meta" / path.name).symlink_to(path)
    with pytest.raises(DatasetError, match=r"no meta/e0\.json: it is not whole"):
        LeRobotSource(tmp_path / "part")
