from __future__ import annotations

import json

import numpy as np
import pytest

from e0_policy.action_tokenizer import ActionTokenizer
from e0_policy.dataset import (
    ChunkDataset,
    DatasetError,
    Episode,
    PackedSource,
    chunks_of,
    fit_statistics,
    write_packed,
)
from e0_policy.normalization import Normalizer
from e0_policy.text_tokenizer import Prompt, WordTokenizer
from e0_policy.transforms import PolicyTransform
from e0_policy.types import Representation

NAMES = ("joint", "gripper")


class TinySource:
    embodiment, period_ns, views = "panda", 50_000_000, ("base",)
    proprioception_names = action_names = NAMES
    representation = Representation.JOINT_POSITION

    def __init__(self, lengths=(5, 3)):
        self.episodes = []
        for i, n in enumerate(lengths):
            joint = i + np.arange(n + 1) * 0.1
            table = np.stack([joint, (np.arange(n + 1) % 2).astype(float)], 1)
            self.episodes.append(Episode(f"e{i}", f"do {i}", table[:-1], table[1:]))

    def images(self, episode, frame):
        return {"base": np.full((8, 8, 3), 10 * episode + frame, np.uint8)}


def _transform(rows=4):
    bounds = np.array([-1.0, 0.0]), np.array([1.0, 1.0])
    return PolicyTransform(
        views=("base",),
        image_size=8,
        prompt=Prompt(WordTokenizer(), 8),
        proprioception=Normalizer("quantile", NAMES, np.array([-1.0, 0.0]), np.array([3.0, 1.0])),
        proprio_dim=2,
        actions=Normalizer("quantile", NAMES, *bounds),
        relative=(True, False),
        action_dim=2,
        prediction_horizon=rows,
        tokenizer=ActionTokenizer(1000),
    )


def test_a_sample_is_a_frame_and_the_rows_from_it_on():
    dataset = ChunkDataset(TinySource(), [0, 1], _transform())
    assert len(dataset) == 8
    inputs, targets = dataset[6]
    (episode, frame), (proprioception, rows) = dataset.where(6), dataset.numbers(6)
    assert (inputs.images == 11).all() and (episode.instruction, frame) == ("do 1", 1)
    np.testing.assert_allclose(rows[:, 0], [1.2, 1.3])
    assert targets.mask[:, 0].tolist() == [True, True, False, False]
    back = dataset.transform.rows(targets.tokens, proprioception)
    np.testing.assert_allclose(back[:2], rows, atol=2e-3)
    np.testing.assert_allclose(back[2:], rows[-1:].repeat(2, 0), atol=2e-3)


def test_only_the_chosen_episodes_are_there():
    dataset = ChunkDataset(TinySource(), [1], _transform())
    assert len(dataset) == 3 and {dataset.where(i)[0].instruction for i in range(3)} == {"do 1"}


def test_an_error_names_the_episode_and_the_frame():
    source = TinySource()
    source.images = lambda episode, frame: {"base": np.zeros((8, 8), np.uint8)}
    with pytest.raises(DatasetError, match=r"episode e1, frame 2: view 'base' is uint8 \(8, 8\)"):
        ChunkDataset(source, [0, 1], _transform())[7]


@pytest.mark.parametrize("per_row", [False, True])
def test_statistics_are_those_of_relative_chunks(per_row):
    source = TinySource((40, 30))
    _, got = fit_statistics(source, [0, 1], (True, False), 4, per_row=per_row)
    deltas = []
    for episode in source.episodes:
        rows, valid = chunks_of(episode, 4)
        assert valid.sum() == 4 * len(episode) - 6
        relative = rows - episode.proprioception[:, None] * [1, 0]
        relative[~valid] = np.nan
        deltas.append(relative)
    expected = np.concatenate(deltas)
    axes = (0,) if per_row else (0, 1)
    np.testing.assert_allclose(got.maximum, np.nanmax(expected, axes))
    np.testing.assert_allclose(got.mean, np.nanmean(expected, axes))
    assert got.mean.shape == ((4, 2) if per_row else (2,))
    assert got.maximum.max() < 1.01, "relative to the frame, not absolute"


def test_a_packed_folder_gives_back_the_source(tmp_path):
    source, folder = TinySource(), tmp_path / "packed"
    write_packed(source, folder)
    packed = PackedSource(folder)
    assert packed.views == ("base",) and packed.action_names == NAMES and packed.period_ns == 50_000_000
    for e, (a, b) in enumerate(zip(packed.episodes, source.episodes, strict=True)):
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.proprioception, b.proprioception)
        assert (a.identifier, a.instruction) == (b.identifier, b.instruction)
        for t in range(len(a)):
            np.testing.assert_array_equal(packed.images(e, t)["base"], source.images(e, t)["base"])
    with pytest.raises(DatasetError, match="exists; give a new folder"):
        write_packed(source, folder)


def test_a_packed_folder_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"no index\.json"):
        PackedSource(tmp_path)
    folder = tmp_path / "packed"
    write_packed(TinySource(), folder)
    np.save(folder / "actions.npy", np.zeros((7, 2)))
    with pytest.raises(DatasetError, match=r"shape \(7, 2\); index\.json says \(8, 2\)"):
        PackedSource(folder)
    np.save(folder / "actions.npy", np.zeros((8, 2)))
    np.save(folder / "view_base.npy", np.zeros((8, 8, 8, 3), np.float32))
    with pytest.raises(DatasetError, match="float32"):
        PackedSource(folder)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "views": ["../base"]}))
    with pytest.raises(DatasetError, match=r"view name '../base'; allowed"):
        PackedSource(folder)


def test_several_threads_pack_the_same_and_tell_how_far_they_are(tmp_path):
    source, calls = TinySource((5, 3, 4, 6)), []
    write_packed(source, tmp_path / "one")
    write_packed(source, tmp_path / "four", lambda done, total: calls.append((done, total)), threads=4)
    assert (tmp_path / "one/view_base.npy").read_bytes() == (tmp_path / "four/view_base.npy").read_bytes()
    assert calls == [(5, 18), (8, 18), (12, 18), (18, 18)]
    source.images = lambda episode, frame: {"base": np.zeros((8 + (episode == 2), 8, 3), np.uint8)}
    with pytest.raises(DatasetError, match=r"episode e2, frame 0: view 'base' is \(9, 8, 3\), before it \(8, 8, 3\)"):
        write_packed(source, tmp_path / "other", threads=2)
    assert not (tmp_path / "other").exists()


def test_a_batch_is_its_samples_whatever_the_size_of_the_images(tmp_path):
    source = TinySource((6, 5))
    rng = np.random.default_rng(0)
    stored = {(e, t): rng.integers(0, 256, (12, 8, 3), np.uint8) for e in range(2) for t in range(6)}
    source.images = lambda episode, frame: {"base": stored[episode, frame]}
    write_packed(source, tmp_path / "packed")
    transform = _transform()
    for kind in (source, PackedSource(tmp_path / "packed")):
        dataset = ChunkDataset(kind, [0, 1], transform)
        inputs, targets = dataset.batch([7, 0, 10, 5])
        for i, index in enumerate([7, 0, 10, 5]):
            (episode, t), (proprioception, rows) = dataset.where(index), dataset.numbers(index)
            one = transform.inputs(kind.images(index // 6, t), proprioception, episode.instruction)
            for name in ("images", "view_mask", "text_tokens", "text_mask", "proprio"):
                np.testing.assert_array_equal(getattr(inputs, name)[i], getattr(one, name))
                np.testing.assert_array_equal(getattr(dataset[index][0], name), getattr(one, name))
            chunk = transform.targets(rows, proprioception)
            np.testing.assert_array_equal(targets.tokens[i], chunk.tokens)
            np.testing.assert_array_equal(targets.mask[i], chunk.mask)


def test_a_frame_without_any_known_view_is_named():
    source = TinySource()
    source.images = lambda episode, frame: {} if (episode, frame) == (1, 2) else {"base": np.zeros((8, 8, 3), np.uint8)}
    with pytest.raises(DatasetError, match="episode e1, frame 2: none of the views base"):
        ChunkDataset(source, [0, 1], _transform()).batch([0, 7])


def test_an_unfinished_folder_is_not_there(tmp_path):
    source = TinySource()
    source.images = lambda episode, frame: {} if episode else {"base": np.zeros((8, 8, 3), np.uint8)}
    with pytest.raises(DatasetError, match="episode e1, frame 0: no view 'base'"):
        write_packed(source, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_numbers_of_an_episode_are_checked():
    good = np.zeros((3, 2))
    with pytest.raises(DatasetError, match="actions column 1 is nan in frame 2"):
        Episode("e", "", good, np.array([[0, 0], [0, 0], [0, np.nan]]))
    with pytest.raises(DatasetError, match=r"\(3, 2\) and actions \(2, 2\)"):
        Episode("e", "", good, good[:2])
