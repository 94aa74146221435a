from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_folder import write_folder

from e0_policy import train_setup
from e0_policy.checkpoint import Checkpoint
from e0_policy.dataset import ChunkDataset
from e0_policy.model_config import preset
from e0_policy.normalization import NormalizationError
from e0_policy.synthetic import SyntheticSource
from e0_policy.text_tokenizer import TextTokenError
from e0_policy.train_config import TrainConfig, TrainConfigError
from e0_policy.train_setup import (
    check_prompts,
    check_rows,
    clipped_share,
    fingerprint,
    fit_transform,
    load_data,
    make_writing,
    open_source,
)
from e0_policy.types import Representation
from e0_ros.core.step_rows import OSC_POSE


def _config(**changes) -> TrainConfig:
    model = changes.pop("model", {})
    values = {"constant_dimensions": "hold", "synthetic_episodes": 8, "validation_fraction": 0.25, **changes}
    return TrainConfig(model=preset("nano", image_size=32, **model), **values)


def test_statistics_come_from_the_training_episodes_alone():
    data = load_data(_config(), None)
    seen = {data.dataset.where(i)[0].instruction for i in range(len(data.dataset))}
    assert seen and len(data.dataset) + len(data.validation) == sum(map(len, data.source.episodes))
    again = fit_transform(_config(), data.source, [e for e in range(8) if e not in (0, 1)])
    assert again.actions.to_json() != fit_transform(_config(), data.source, range(8)).actions.to_json()


def test_parts_of_one_take_are_not_split_between_training_and_validation(tmp_path):
    """Each of 6 takes has two instructions; the first run fills the cache, the others find one that tells no takes."""
    for name in ("one", "two"):
        write_folder(tmp_path / name, (6,) * 3, per_file=3, side=16)
        path = tmp_path / name / "data/chunk-000/file-000.parquet"
        table = pq.read_table(path)
        place = table.column_names.index("task_index")
        pq.write_table(table.set_column(place, "task_index", [[0, 0, 0, 1, 1, 1] * 3]), path)
    folders = (str(tmp_path / "one"), str(tmp_path / "two"))
    for attempt in range(3):
        config = _config(data=folders, cache_dir=str(tmp_path / "cache"), validation_fraction=0.4, seed=attempt)
        data = load_data(config, None)
        assert len(data.source.episodes) == 12 and len({e.take for e in data.source.episodes}) == 6
        training, held = ({s.where(i)[0].take for i in range(len(s))} for s in (data.dataset, data.validation))
        assert len(training) == 4 and len(held) == 2 and not training & held
        for index in (tmp_path / "cache").glob("*/index.json"):
            known = json.loads(index.read_text())
            index.write_text(json.dumps(known | {"episodes": [e | {"take": ""} for e in known["episodes"]]}))


def test_joints_are_relative_and_the_gripper_is_absolute_within_its_bounds():
    transform = load_data(_config(), None).transform
    assert transform.relative == (True,) * 7 + (False,)
    assert (transform.actions.low[7], transform.actions.high[7]) == (0.0, 1.0)
    assert np.abs(transform.actions.low[:7]).max() < 1.0, "of differences, not of joint positions"
    absolute = load_data(_config(relative_actions=False), None).transform
    assert absolute.relative == (False,) * 8 and absolute.actions.low[3] < -1.5


def test_the_longest_prompt_of_all_frames_must_fit():
    """Where states are written with as many digits as they have, as with PaliGemma's tokenizer."""
    data = load_data(_config(model={"proprio_form": "text", "max_text_tokens": 200}), None)
    prompt, whole = replace(data.transform.prompt, digits=0), data.transform
    states = [
        (e.instruction, s) for e in data.source.episodes for s in whole.proprioception.normalize(e.proprioception)
    ]
    longest = max(len(prompt.tokenizer.encode(prompt.text(*state))) for state in states)
    check_prompts(data.source, replace(whole, prompt=replace(prompt, max_tokens=longest)))
    with pytest.raises(TextTokenError, match=f"{longest} tokens; the model takes {longest - 1}"):
        check_prompts(data.source, replace(whole, prompt=replace(prompt, max_tokens=longest - 1)))


def test_few_values_clip_and_mean_std_with_one_set_per_row_works():
    data = load_data(_config(), None)
    assert clipped_share(data.dataset) < 0.03
    rows = load_data(_config(normalization="mean_std", per_row_statistics=True), None)
    assert rows.transform.actions.low.shape == (8, 8) and clipped_share(rows.dataset) < 0.03


def test_the_fingerprint_tells_other_data():
    assert fingerprint(SyntheticSource(3)) == fingerprint(SyntheticSource(3)) != fingerprint(SyntheticSource(3, seed=1))
    changed, episode = SyntheticSource(3), SyntheticSource(3).episodes[1]
    changed.episodes[1] = replace(episode, actions=episode.actions + 1e-9)
    assert fingerprint(changed) != fingerprint(SyntheticSource(3))


def test_the_writing_covers_the_chunks_of_the_dataset():
    config = _config(action_writing="fast", writing_vocabulary=128, model={"vocab_size": 512})
    data = load_data(config, None)
    writing = make_writing(config, data.dataset)
    assert writing is not None and writing.actions.vocabulary <= 128
    proprioception, rows = data.dataset.numbers(0)
    chunk = data.transform.tokenizer.decode(data.transform.targets(rows, proprioception).tokens)
    ids, mask = writing.write([chunk])
    assert mask.all() and ids.shape[1] < 64 and ids.min() >= 512 - 130


class Steps(SyntheticSource):
    """Demonstrations with rows of a benchmark's controller in the place of joint positions."""

    representation = Representation.EE_DELTA_STEP

    def __init__(self, episodes: int, seed: int = 0, image_size: int = 32) -> None:
        super().__init__(episodes, seed, image_size)
        self.action_names = OSC_POSE
        self.episodes = [replace(e, actions=np.random.default_rng(0).random((len(e), 7))) for e in self.episodes]


def test_rows_of_a_benchmark_are_learned_as_they_are(monkeypatch):
    monkeypatch.setattr(train_setup, "SyntheticSource", Steps)
    data = load_data(_config(model={"action_dim": 7}), None)
    transform = data.transform
    assert transform.relative == (False,) * 7 and transform.actions.names == OSC_POSE
    assert (transform.actions.low[6], transform.actions.high[6]) == (0.0, 1.0)
    assert len(transform.proprioception.names) == 8
    proprioception, rows = data.dataset.numbers(0)
    tokens = transform.targets(rows, proprioception).tokens
    np.testing.assert_allclose(transform.rows(tokens, proprioception)[: len(rows)], rows, atol=0.02)
    with pytest.raises(TrainConfigError, match=r"drop_idle_rad is 0\.002; rows of synthetic are ee_delta_step"):
        open_source(_config(drop_idle_rad=0.002))
    monkeypatch.setattr(Steps, "representation", Representation.EE_POSE)
    with pytest.raises(TrainConfigError, match="are ee_pose; E0 is trained on joint_position and ee_delta_step"):
        open_source(_config())


def test_a_checkpoint_goes_on_with_rows_of_its_own_alone():
    joints, steps = load_data(_config(), None), Steps(3)
    made = Checkpoint(joints.transform, joints.transform.to_json(), "panda", 50_000_000, 2)
    check_rows(made, joints.source)
    with pytest.raises(
        TrainConfigError, match=r"joint_position \(panda_joint1, .*rows of the data are ee_delta_step \(dx"
    ):
        check_rows(made, steps)
    transform = {"actions": {"names": ["dy", *OSC_POSE[1:]]}}
    other = replace(made, transform=transform, representation=Representation.EE_DELTA_STEP)
    with pytest.raises(TrainConfigError, match=r"predicts ee_delta_step \(dy, dy, .*data are ee_delta_step \(dx, dy"):
        check_rows(other, steps)
    check_rows(replace(other, transform={"actions": {"names": list(OSC_POSE)}}), steps)
    with pytest.raises(TrainConfigError, match=r"is of fr3 with a row each 50 ms.*the data are of panda"):
        check_rows(replace(made, embodiment="fr3"), joints.source)
    with pytest.raises(TrainConfigError, match=r"with a row each 100 ms.*the data are of panda .* 50 ms"):
        check_rows(replace(made, period_ns=100_000_000), joints.source)


def test_what_cannot_be_trained_is_named():
    with pytest.raises(NormalizationError, match="panda_joint2 has zero range"):
        load_data(_config(constant_dimensions="error"), None)
    with pytest.raises(TrainConfigError, match=r"model\.views has side; synthetic has base, wrist"):
        open_source(_config(model={"views": ["base", "side"]}))
    good = load_data(_config(), None)
    with pytest.raises(TrainConfigError, match=r"vocab_size is 300; the text tokenizer has 1024 ids"):
        load_data(_config(model={"vocab_size": 300}), good.transform.to_json())
    with pytest.raises(ValueError, match="8 action columns for a model with 7 action dimensions"):
        load_data(_config(model={"action_dim": 7}), None)
    assert isinstance(good.dataset, ChunkDataset)
