"""What a configuration stands for: demonstrations, the transform fitted to them, and the writing for insulation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from e0_policy.action_tokenizer import ActionTokenizer
from e0_policy.checkpoint import CONFIG, MAX_CONFIG_BYTES, Checkpoint, read_checkpoint
from e0_policy.data_order import split_takes
from e0_policy.dataset import ChunkDataset, DatasetError, PackedSource, Source, fit_statistics
from e0_policy.fast_tokens import FastTokenizer, NaiveTokenizer
from e0_policy.image_cache import cached
from e0_policy.insulation import ActionWriting
from e0_policy.lerobot_source import INFO, LeRobotSource
from e0_policy.model_config import E0Config
from e0_policy.normalization import Normalizer
from e0_policy.progress import Bar
from e0_policy.selection import mixed, with_instructions, without_idle
from e0_policy.synthetic import SyntheticSource
from e0_policy.text_tokenizer import PaliGemmaTokenizer, Prompt, TextTokenizer, WordTokenizer
from e0_policy.train_config import DataFolder, TrainConfig, TrainConfigError
from e0_policy.transforms import PolicyTransform
from e0_policy.types import FloatArray, Representation

GRIPPER = "gripper"
TRAINED = (Representation.JOINT_POSITION, Representation.EE_DELTA_STEP)
_TRAINED = " and ".join(kind.label for kind in TRAINED)
_WEIGHT_FIELDS = tuple(
    f.name for f in fields(E0Config) if f.name not in ("steps", "noise", "sampling", "committed_max", "insulate")
)
"""Fields that two models must share for the weights of one to mean the same in the other."""

WRITING_CHUNKS = 1000
"""Chunks that FAST merges are trained on."""


@dataclass(frozen=True)
class Data:
    """Demonstrations cut into training and validation samples, by one transform.

    `image_px` is the longer side of the recorded pictures, before they were scaled for the network: what a robot or a
    simulator should deliver, so that a policy is shown what it was trained on.
    """

    source: Source
    image_px: int
    dataset: ChunkDataset
    validation: ChunkDataset
    transform: PolicyTransform
    writing: ActionWriting | None


def load_data(config: TrainConfig, transform: Mapping[str, Any] | None) -> Data:
    """Everything that training reads.

    Args:
        config: of the run.
        transform: JSON of the transform to use; None fits one to the training episodes.

    """
    source = open_source(config)
    takes = [episode.take for episode in source.episodes]
    training, held_out = split_takes(takes, config.validation_fraction, config.seed)
    text_file = Path(config.text_tokenizer) if config.text_tokenizer else None
    used = PolicyTransform.from_json(transform, text_file) if transform else fit_transform(config, source, training)
    size = used.prompt.tokenizer.vocabulary
    if size > config.model.vocab_size:
        raise TrainConfigError(f"model.vocab_size is {config.model.vocab_size}; the text tokenizer has {size} ids")
    dataset = ChunkDataset(source, training, used)
    held = ChunkDataset(source, held_out, used)
    return Data(source, recorded_px(config), dataset, held, used, make_writing(config, dataset))


def check_prompts(source: Source, transform: PolicyTransform) -> None:
    """Encode the longest prompt of every episode, so that none stops a run on its way.

    Of held-out ones too, whose words no training instruction need have: those are spelled, and take more tokens.

    Raises:
        TextTokenError: a prompt does not fit.

    """
    prompt = transform.prompt
    for episode in source.episodes:
        said = episode.proprioception if prompt.proprioception else episode.proprioception[:1]
        states = transform.proprioception.normalize(said)
        prompt.encode(episode.instruction, max(states, key=lambda state: len(prompt.text(episode.instruction, state))))


def open_source(config: TrainConfig) -> Source:
    """The demonstrations: all folders as one, without what the configuration leaves out.

    Raises:
        TrainConfigError: the model wants a view that they lack, or their rows are none that it is trained on.
        DatasetError: no such folder, not whole, or folders that cannot be mixed.

    """
    if config.data == "synthetic":
        source: Source = SyntheticSource(config.synthetic_episodes, config.seed, config.model.image_size)
    else:
        source = mixed([open_folder(f, config) for f in config.folders], [f.folder for f in config.folders])
    where = ", ".join(f.folder for f in config.folders) or str(config.data)
    if missing := sorted(set(config.model.views) - set(source.views)):
        raise TrainConfigError(f"model.views has {', '.join(missing)}; {where} has {', '.join(source.views)}")
    if source.representation not in TRAINED:
        raise TrainConfigError(f"rows of {where} are {source.representation.label}; E0 is trained on {_TRAINED}")
    if config.instructions:
        source = with_instructions(source, config.instructions)
    if config.drop_idle_rad:
        if source.representation is not Representation.JOINT_POSITION:
            rows = f"rows of {where} are {source.representation.label}, whose no-ops e0 import leaves out"
            raise TrainConfigError(f"drop_idle_rad is {config.drop_idle_rad:g}; {rows}: give 0")
        source = without_idle(source, [name != GRIPPER for name in source.action_names], config.drop_idle_rad)
    return source


def open_folder(data: DataFolder, config: TrainConfig) -> Source:
    """Demonstrations of one folder, their images at the model's size in mapped memory unless decoded always."""
    folder, side = Path(data.folder), config.model.image_size
    source = as_recorded(data)
    views = [view for view in config.model.views if view in source.views]
    ready = isinstance(source, PackedSource) and all(source.side_px(view) == side for view in views)
    if ready or config.decode == "always" or not views:
        return source
    cache = Path(config.cache_dir) if config.cache_dir else folder.with_name(f"{folder.name}.cache")
    return cached(source, source.digest(), views, side, cache, Bar(f"decode {folder}", "frames"))


def as_recorded(data: DataFolder) -> LeRobotSource | PackedSource:
    """Demonstrations of one folder as they lie there."""
    folder = Path(data.folder)
    if (folder / INFO).is_file():
        return LeRobotSource(folder, data.layout)
    if (folder / "index.json").is_file():
        return PackedSource(folder)
    raise DatasetError(f"{folder} holds no demonstrations: neither {INFO} (LeRobotDataset) nor index.json (packed)")


def recorded_px(config: TrainConfig) -> int:
    """The longer side of the recorded pictures: the largest of every folder's first ones."""
    if config.data == "synthetic":
        return config.model.image_size
    pictures = (image for folder in config.folders for image in as_recorded(folder).images(0, 0).values())
    return max((max(image.shape[:2]) for image in pictures), default=config.model.image_size)


def fingerprint(source: Source) -> str:
    """SHA-256 of identifiers, instructions and numbers of all episodes: whether a resumed run has the same data."""
    digest = hashlib.sha256()
    for episode in source.episodes:
        digest.update(json.dumps([episode.identifier, episode.instruction, len(episode)]).encode())
        for table in (episode.proprioception, episode.actions):
            digest.update(np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()


def fit_transform(config: TrainConfig, source: Source, episodes: Sequence[int]) -> PolicyTransform:
    """The transform fitted to the training episodes alone.

    Raises:
        NormalizationError: a dimension never moves; names it.
        TransformError: the model is too narrow for the arm.

    """
    model = config.model
    absolute = source.representation is Representation.JOINT_POSITION
    relative = tuple(config.relative_actions and absolute and name != GRIPPER for name in source.action_names)
    proprioception, actions = fit_statistics(
        source,
        episodes,
        relative,
        model.prediction_horizon,
        per_row=config.per_row_statistics,
        quantiles=(config.quantile_low, config.quantile_high),
    )
    normalizers = [
        Normalizer.fit(
            statistics,
            config.normalization,
            bounds={GRIPPER: (0.0, 1.0)} if GRIPPER in statistics.names else None,
            constant=config.constant_dimensions,
        )
        for statistics in (proprioception, actions)
    ]
    in_text, tokenizer = model.proprio_form == "text", _text_tokenizer(config, source, episodes)
    digits = len(str(model.proprio_bins - 1)) if isinstance(tokenizer, WordTokenizer) else 0
    return PolicyTransform(
        views=model.views,
        image_size=model.image_size,
        prompt=Prompt(tokenizer, model.max_text_tokens, in_text, model.proprio_bins, digits),
        proprioception=normalizers[0],
        proprio_dim=model.proprio_dim,
        actions=normalizers[1],
        relative=relative,
        action_dim=model.action_dim,
        prediction_horizon=model.prediction_horizon,
        tokenizer=ActionTokenizer(model.bins, model.bin_decode),
    )


def make_writing(config: TrainConfig, dataset: ChunkDataset) -> ActionWriting | None:
    """The second writing of the actions for knowledge insulation, None if the configuration has none.

    Raises:
        InsulationError: the text vocabulary has too few special tokens.

    """
    text = dataset.transform.prompt.tokenizer
    if config.action_writing == "none":
        return None
    if config.action_writing == "naive":
        return ActionWriting(text, NaiveTokenizer(config.writing_vocabulary, config.writing_stride))
    picks = np.linspace(0, len(dataset) - 1, min(len(dataset), WRITING_CHUNKS)).astype(int)
    chunks = [_chunk(dataset, int(i)) for i in picks]
    return ActionWriting(text, FastTokenizer.fit(np.stack(chunks), config.writing_vocabulary))


def clipped_share(dataset: ChunkDataset, most: int = 2000) -> float:
    """Share of action values outside [-1, 1], over at most `most` evenly spaced samples.

    With quantiles at 1 and 99 % it is about 0.02; much more means that the statistics do not describe the actions.
    """
    clipped = total = 0
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), most)).astype(int):
        proprioception, rows = dataset.numbers(int(index))
        targets = dataset.transform.targets(rows, proprioception)
        clipped, total = clipped + targets.clipped, total + int(targets.mask.sum())
    return clipped / total


def initial_checkpoint(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint of our own that `initial_weights` names, checked; None if it names nothing or published weights.

    Raises:
        TrainConfigError: it is of another model; names the first field that differs, with both values.
        CheckpointError: damaged.

    """
    folder = Path(config.initial_weights)
    if not config.initial_weights or not _is_own(folder):
        return None
    found = read_checkpoint(folder)
    ours, theirs = config.model.to_dict(), found.model.to_dict()
    for name in _WEIGHT_FIELDS:
        if ours[name] != theirs[name]:
            raise TrainConfigError(f"model.{name} is {ours[name]!r}; {folder} has {theirs[name]!r}")
    return found


def check_rows(initial: Checkpoint, source: Source) -> None:
    """Refuse demonstrations with other rows than those that a checkpoint predicts, whose transform is kept.

    Raises:
        TrainConfigError: another embodiment, period or kind of rows; names both sides.

    """
    sides = (initial.embodiment, initial.period_ns), (source.embodiment, source.period_ns)
    if sides[0] != sides[1]:
        told, got = (f"{arm} with a row each {period_ns / 1e6:g} ms" for arm, period_ns in sides)
        raise TrainConfigError(
            f"initial_weights {initial.folder} is of {told}, and its statistics are kept; the data are of {got}: give "
            "a checkpoint of the same, or none"
        )
    theirs = initial.representation, tuple(initial.transform["actions"]["names"])
    ours = source.representation, source.action_names
    steps = Representation.EE_DELTA_STEP in (theirs[0], ours[0])
    if len(theirs[1]) != len(ours[1]) or (steps and theirs != ours):
        told, got = (f"{kind.label} ({', '.join(names)})" for kind, names in (theirs, ours))
        raise TrainConfigError(f"initial_weights {initial.folder} predicts {told}; rows of the data are {got}")


def _is_own(folder: Path) -> bool:
    """Whether a folder is a checkpoint of ours; published folders have a `config.json` of another kind."""
    file = folder / CONFIG
    return file.is_file() and file.stat().st_size <= MAX_CONFIG_BYTES and b'"transform"' in file.read_bytes()


def _chunk(dataset: ChunkDataset, index: int) -> FloatArray:
    transform = dataset.transform
    proprioception, rows = dataset.numbers(index)
    tokens = transform.targets(rows, proprioception).tokens
    return transform.tokenizer.decode(tokens)[:, : transform.columns]


def _text_tokenizer(config: TrainConfig, source: Source, episodes: Sequence[int]) -> TextTokenizer:
    if config.text_tokenizer:
        return PaliGemmaTokenizer(Path(config.text_tokenizer))
    specials = 0 if config.action_writing == "none" else config.writing_vocabulary + 2
    instructions = (source.episodes[e].instruction for e in episodes)
    return WordTokenizer.fit(instructions, config.model.vocab_size, specials)
