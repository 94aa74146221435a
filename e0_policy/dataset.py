"""What training reads: episodes of any source, cut into (observation, action chunk) samples.

A source is small: tables of numbers per episode, and images on demand. `PackedSource` reads a folder of arrays that are
mapped into memory; `write_packed` makes one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from e0_policy.normalization import Statistics, StatisticsSketch
from e0_policy.transforms import BoolArray, ModelInput, PolicyTransform, Targets
from e0_policy.types import FloatArray, ImageArray

MAX_INDEX_BYTES = 256 * 1024 * 1024
_VIEW = re.compile(r"[a-z0-9_]{1,64}")


class DatasetError(ValueError):
    """Demonstrations are missing or malformed; the message says what was got, what is needed and where."""


@dataclass(frozen=True)
class Episode:
    """Numbers of one episode of T frames; row t of `actions` is the set-point in force from frame t on.

    `proprioception` is `(T, P)`, `actions` `(T, columns)`, both absolute, in rad (or m) with the gripper in [0, 1].
    """

    identifier: str
    instruction: str
    proprioception: FloatArray
    actions: FloatArray

    def __post_init__(self) -> None:
        p, a = self.proprioception, self.actions
        if p.ndim != 2 or a.ndim != 2 or len(p) != len(a) or not len(p):
            raise DatasetError(
                f"episode {self.identifier}: proprioception {p.shape} and actions {a.shape} do not match"
            )
        for name, table in (("proprioception", p), ("actions", a)):
            if not np.isfinite(table).all():
                frame, column = (int(i) for i in np.argwhere(~np.isfinite(table))[0])
                value = table[frame, column]
                raise DatasetError(f"episode {self.identifier}: {name} column {column} is {value} in frame {frame}")

    def __len__(self) -> int:
        return len(self.actions)


class Source(Protocol):
    """Demonstrations of one embodiment with one action representation."""

    embodiment: str
    period_ns: int
    views: tuple[str, ...]
    proprioception_names: tuple[str, ...]
    action_names: tuple[str, ...]
    episodes: Sequence[Episode]

    def images(self, episode: int, frame: int) -> Mapping[str, ImageArray]:
        """Views of one frame, `uint8 (height, width, 3)`; a view that was not recorded is left out."""


@dataclass(frozen=True)
class RawSample:
    """A frame and the rows from it on: `rows` `(n, columns)`, n at most the horizon, fewer at an episode's end."""

    views: Mapping[str, ImageArray]
    instruction: str
    proprioception: FloatArray
    rows: FloatArray


class ChunkDataset:
    """Map-style dataset: one sample per frame of the chosen episodes.

    Rows behind the end of an episode are masked out, and hold the last command. Which samples are seen when is the
    business of `DataOrder`, random changes to them that of the training loop, so an item is a function of its index.
    """

    def __init__(self, source: Source, episodes: Sequence[int], transform: PolicyTransform) -> None:
        self.source, self.transform = source, transform
        lengths = [len(source.episodes[e]) for e in episodes]
        self._episode = np.repeat(np.array(episodes, np.int64), lengths)
        self._frame = np.concatenate([np.arange(n) for n in lengths]) if lengths else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._frame)

    def raw(self, index: int) -> RawSample:
        """A sample in the robot's units."""
        e, t = int(self._episode[index]), int(self._frame[index])
        return RawSample(self.source.images(e, t), self.source.episodes[e].instruction, *self.numbers(index))

    def numbers(self, index: int) -> tuple[FloatArray, FloatArray]:
        """Proprioception and rows of a sample, without its images."""
        episode, t = self.source.episodes[int(self._episode[index])], int(self._frame[index])
        return episode.proprioception[t], episode.actions[t : t + self.transform.prediction_horizon]

    def __getitem__(self, index: int) -> tuple[ModelInput, Targets]:
        """A sample in the model's units.

        Raises:
            DatasetError: the sample does not fit the policy; names the episode and the frame.

        """
        raw = self.raw(index)
        try:
            inputs = self.transform.inputs(raw.views, raw.proprioception, raw.instruction)
            return inputs, self.transform.targets(raw.rows, raw.proprioception)
        except ValueError as error:
            identifier = self.source.episodes[int(self._episode[index])].identifier
            raise DatasetError(f"episode {identifier}, frame {int(self._frame[index])}: {error}") from error


@dataclass(frozen=True)
class DataOrder:
    """Which samples each step sees: a fresh permutation per epoch, a function of seed and step alone.

    Iterating gives the lists of sample indices of one rank, from step `first` on, without end.

    Args:
        samples: size of the dataset.
        batch: samples per step over all ranks.
        seed: of the permutations.
        first: step to start at.
        rank: of `world` processes; each takes an equal share of every batch.
        world: number of processes.

    """

    samples: int
    batch: int
    seed: int
    first: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1 or self.batch < 1 or self.batch % self.world:
            raise DatasetError(
                f"{self.samples} samples in batches of {self.batch} for {self.world} processes do not go"
            )

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch // self.world
        epoch, order = -1, np.zeros(0, np.int64)
        step = self.first
        while True:
            indices = []
            start = step * self.batch + self.rank * share
            for position in range(start, start + share):
                if position // self.samples != epoch:
                    epoch = position // self.samples
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.samples)
                indices.append(int(order[position % self.samples]))
            yield indices
            step += 1


def split_episodes(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Training and validation episodes; whole episodes, so that no validation frame has a twin in training.

    Raises:
        DatasetError: too few episodes for the fraction.

    """
    held = round(count * fraction) or int(fraction > 0)
    if count - held < 1:
        raise DatasetError(f"{count} episodes with {fraction:.0%} held out leave none for training")
    order = np.random.default_rng((seed, count)).permutation(count)
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


class WithoutIdle:
    """A source without the frames at which the command rests. Demonstrators pause; a policy may never leave a pause.

    Args:
        source: the demonstrations.
        columns: action columns that `threshold_rad` is for (the joints); any change of another one is a move.
        threshold_rad: largest change from the command before that counts as rest.

    """

    def __init__(self, source: Source, columns: Sequence[bool], threshold_rad: float) -> None:
        self._source = source
        self.embodiment, self.period_ns, self.views = source.embodiment, source.period_ns, source.views
        self.proprioception_names, self.action_names = source.proprioception_names, source.action_names
        limit = np.where(columns, threshold_rad, 1e-6)
        self._frames: list[NDArray[np.int64]] = []
        episodes = []
        for episode in source.episodes:
            change = np.abs(np.diff(episode.actions, axis=0)) > limit
            frames = np.flatnonzero(np.concatenate([[True], change.any(1)]))
            tables = episode.proprioception[frames], episode.actions[frames]
            episodes.append(Episode(episode.identifier, episode.instruction, *tables))
            self._frames.append(frames)
        self.episodes: Sequence[Episode] = episodes

    def images(self, episode: int, frame: int) -> Mapping[str, ImageArray]:
        """Views of one frame that is left."""
        return self._source.images(episode, int(self._frames[episode][frame]))


def fit_statistics(
    source: Source,
    episodes: Sequence[int],
    relative: Sequence[bool],
    horizon: int,
    *,
    per_row: bool = False,
    quantiles: tuple[float, float] = (0.01, 0.99),
) -> tuple[Statistics, Statistics]:
    """Statistics of the proprioception `(P,)` and of (relative) action chunks `(columns,)`, or `(H, columns)` per row.

    The statistics are those of what the model predicts: every chunk that starts at a frame, relative to that frame.
    """
    shape = (horizon, len(relative)) if per_row else (len(relative),)
    proprioception = StatisticsSketch((len(source.proprioception_names),), source.proprioception_names)
    actions = StatisticsSketch(shape, source.action_names)
    for index in episodes:
        episode = source.episodes[index]
        proprioception.update(episode.proprioception)
        chunks, valid = _chunks(episode, relative, horizon)
        actions.update(chunks, valid[..., None])
    return proprioception.statistics(*quantiles), actions.statistics(*quantiles)


def chunks_of(episode: Episode, horizon: int) -> tuple[FloatArray, BoolArray]:
    """Every chunk of an episode: rows `(T, H, columns)`, the last one held behind the end, and validity `(T, H)`."""
    index = np.arange(len(episode))[:, None] + np.arange(horizon)
    return episode.actions[np.minimum(index, len(episode) - 1)], index < len(episode)


def _chunks(episode: Episode, relative: Sequence[bool], horizon: int) -> tuple[FloatArray, BoolArray]:
    rows, valid = chunks_of(episode, horizon)
    if any(relative):
        rows = rows - np.where(relative, episode.proprioception[:, None, : len(relative)], 0.0)
    return rows, valid


class PackedSource:
    """A folder written by `write_packed`; images are mapped, not read.

    Raises:
        DatasetError: not such a folder, or its files do not fit each other.

    """

    def __init__(self, folder: Path) -> None:
        index = folder / "index.json"
        if not index.is_file():
            raise DatasetError(f"{folder}: no index.json; give a folder of packed demonstrations")
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise DatasetError(f"{index} has {index.stat().st_size} bytes; allowed are {MAX_INDEX_BYTES}")
        data = json.loads(index.read_text(encoding="utf-8"))
        self.embodiment, self.period_ns = str(data["embodiment"]), int(data["period_ns"])
        self.views = tuple(str(view) for view in data["views"])
        self.proprioception_names = tuple(data["proprioception_names"])
        self.action_names = tuple(data["action_names"])
        lengths = [int(e["frames"]) for e in data["episodes"]]
        self._start = np.concatenate([[0], np.cumsum(lengths)])
        total = int(self._start[-1])
        proprioception = _load(folder / "proprioception.npy", total, len(self.proprioception_names))
        actions = _load(folder / "actions.npy", total, len(self.action_names))
        self._images = {view: _map_view(folder, view, total) for view in self.views}
        self.episodes: Sequence[Episode] = [
            Episode(str(e["identifier"]), str(e["instruction"]), proprioception[a:b], actions[a:b])
            for e, a, b in zip(data["episodes"], self._start[:-1], self._start[1:], strict=True)
        ]

    def images(self, episode: int, frame: int) -> Mapping[str, ImageArray]:
        """Views of one frame."""
        at = int(self._start[episode]) + frame
        return {view: np.asarray(array[at]) for view, array in self._images.items()}


def write_packed(source: Source, folder: Path) -> None:
    """Write a source as a folder of arrays; the folder appears only when it is whole.

    Raises:
        DatasetError: the folder exists, or a view is missing in a frame (packed frames have every view).

    """
    if folder.exists():
        raise DatasetError(f"{folder} exists; give a new folder")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    total = sum(map(len, source.episodes))
    np.save(partial / "proprioception.npy", np.concatenate([e.proprioception for e in source.episodes]))
    np.save(partial / "actions.npy", np.concatenate([e.actions for e in source.episodes]))
    arrays: dict[str, NDArray[np.uint8]] = {}
    frames = ((e, t) for e in range(len(source.episodes)) for t in range(len(source.episodes[e])))
    for at, (episode, frame) in enumerate(frames):
        views = source.images(episode, frame)
        for view in source.views:
            if view not in views:
                raise DatasetError(f"episode {source.episodes[episode].identifier}, frame {frame}: no view {view!r}")
            if view not in arrays:
                path, shape = partial / f"view_{_checked(view)}.npy", (total, *views[view].shape)
                arrays[view] = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            arrays[view][at] = views[view]
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]
    index = {
        "embodiment": source.embodiment,
        "period_ns": source.period_ns,
        "views": list(source.views),
        "proprioception_names": list(source.proprioception_names),
        "action_names": list(source.action_names),
        "episodes": [
            {"identifier": e.identifier, "instruction": e.instruction, "frames": len(e)} for e in source.episodes
        ],
    }
    (partial / "index.json").write_text(json.dumps(index), encoding="utf-8")
    partial.replace(folder)


def _load(path: Path, rows: int, columns: int) -> FloatArray:
    table: FloatArray = np.load(path, allow_pickle=False)
    if table.shape != (rows, columns):
        raise DatasetError(f"{path} has shape {table.shape}; index.json says {(rows, columns)}")
    return table.astype(np.float64)


def _map_view(folder: Path, view: str, frames: int) -> NDArray[np.uint8]:
    path = folder / f"view_{_checked(view)}.npy"
    array: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim != 4 or len(array) != frames or array.shape[3] != 3 or array.dtype != np.uint8:
        raise DatasetError(f"{path} is {array.dtype} {array.shape}; needed is uint8 ({frames}, height, width, 3)")
    return array


def _checked(view: str) -> str:
    if not _VIEW.fullmatch(view):
        raise DatasetError(f"view name {view[:80]!r}; allowed is [a-z0-9_]{{1,64}}")
    return view
