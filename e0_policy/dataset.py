"""What training reads: episodes of any source, cut into (observation, action chunk) samples.

A source is small: tables of numbers per episode, and images on demand. `PackedSource` reads a folder of arrays that are
mapped into memory; `write_packed` makes one.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from e0_policy.files import sync
from e0_policy.normalization import Statistics, StatisticsSketch
from e0_policy.transforms import BoolArray, ModelInput, PolicyTransform, Targets, TransformError, resize_with_pad
from e0_policy.types import FloatArray, ImageArray, Representation

MAX_INDEX_BYTES = 256 * 1024 * 1024
IndexArray = NDArray[np.int64]
_VIEW = re.compile(r"[a-z0-9_]{1,64}")
_KEYS = ("embodiment", "period_ns", "views", "proprioception_names", "action_names", "episodes")


class DatasetError(ValueError):
    """Demonstrations are missing or malformed; the message says what was got, what is needed and where."""


@dataclass(frozen=True)
class Episode:
    """Numbers of one episode of T frames; row t of `actions` is the set-point in force from frame t on.

    `take` names what was recorded in one go: all parts of a take that is cut where its instruction changes have the
    same one. `scene` is the task and seed of a simulator's; None: not told, or of a robot.

    `proprioception` is `(T, P)`, in rad, `actions` `(T, columns)`, both with the gripper in [0, 1] last. Actions are
    absolute, unless they are a benchmark's own rows (`Source.representation`).
    """

    identifier: str
    instruction: str
    proprioception: FloatArray
    actions: FloatArray
    take: str = ""
    scene: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        if not self.take:
            object.__setattr__(self, "take", self.identifier)
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
    """Demonstrations of one embodiment with one action representation, whose columns have names."""

    embodiment: str
    period_ns: int
    views: tuple[str, ...]
    proprioception_names: tuple[str, ...]
    action_names: tuple[str, ...]
    representation: Representation
    episodes: Sequence[Episode]

    def images(self, episode: int, frame: int) -> Mapping[str, ImageArray]:
        """Views of one frame, `uint8 (height, width, 3)`; a view that was not recorded is left out."""


@runtime_checkable
class Gathering(Protocol):
    """A source that hands out many frames faster than one by one."""

    def gather(
        self, views: Sequence[str], episodes: IndexArray, frames: IndexArray, side: int
    ) -> tuple[ImageArray, BoolArray]:
        """As the function `gather`."""


def gather(
    source: Source, views: Sequence[str], episodes: IndexArray, frames: IndexArray, side: int
) -> tuple[ImageArray, BoolArray]:
    """Many frames at once, each scaled into a square of `side` px.

    Returns:
        Images `(B, V, side, side, 3)` uint8, zeros where a view is missing, and which are there `(B, V)`.

    Raises:
        DatasetError: an image of another shape or dtype; names the episode and the frame.

    """
    if isinstance(source, Gathering):
        return source.gather(views, episodes, frames, side)
    images = np.zeros((len(episodes), len(views), side, side, 3), np.uint8)
    present = np.zeros((len(episodes), len(views)), bool)
    for i, (episode, frame) in enumerate(zip(episodes.tolist(), frames.tolist(), strict=True)):
        found = source.images(episode, frame)
        for v, view in enumerate(views):
            if view in found:
                present[i, v] = True
                try:
                    images[i, v] = resize_with_pad(found[view], side, view)
                except TransformError as error:
                    identifier = source.episodes[episode].identifier
                    raise DatasetError(f"episode {identifier}, frame {frame}: {error}") from error
    return images, present


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

    @property
    def takes(self) -> list[str]:
        """What was recorded in one go and is in here."""
        return sorted({self.source.episodes[e].take for e in np.unique(self._episode)})

    def where(self, index: int) -> tuple[Episode, int]:
        """Episode and frame of a sample."""
        return self.source.episodes[int(self._episode[index])], int(self._frame[index])

    def numbers(self, index: int) -> tuple[FloatArray, FloatArray]:
        """Proprioception `(P,)` and rows `(n, columns)`, fewer than the horizon at an episode's end; no images."""
        episode, t = self.where(index)
        return episode.proprioception[t], episode.actions[t : t + self.transform.prediction_horizon]

    def __getitem__(self, index: int) -> tuple[ModelInput, Targets]:
        """A sample in the model's units; errors as in `batch`."""
        inputs, targets = self.batch([index])
        one = {f.name: getattr(inputs, f.name)[0] for f in fields(inputs)}
        return ModelInput(**one), Targets(targets.tokens[0], targets.mask[0], targets.clipped)

    def batch(self, indices: Sequence[int]) -> tuple[ModelInput, Targets]:
        """Samples in the model's units, every array with a leading axis B.

        Raises:
            DatasetError: a sample does not fit the policy; names the episode and the frame.

        """
        views, picks = self.transform.views, np.asarray(indices, np.int64)
        found = self._episode[picks], self._frame[picks]
        images, present = gather(self.source, views, *found, self.transform.image_size)
        if not present.any(1).all():
            episode, t = self.where(indices[int(np.argmin(present.any(1)))])
            raise DatasetError(f"episode {episode.identifier}, frame {t}: none of the views {', '.join(views)}")
        horizon = self.transform.prediction_horizon
        proprioception, rows = zip(*(self.numbers(i) for i in indices), strict=True)
        states, valid = np.stack(proprioception), np.arange(horizon) < np.array([[len(r)] for r in rows])
        filled = np.stack([r[np.minimum(np.arange(horizon), len(r) - 1)] for r in rows])
        instructions = [self.source.episodes[e].instruction for e in found[0].tolist()]
        try:
            inputs = self.transform.batch_inputs(images, present, states, instructions)
            return inputs, self.transform.targets(filled, states, valid)
        except ValueError as error:
            raise DatasetError(f"{', '.join(sorted(set(instructions)))[:200]}: {error}") from error

    __getitems__ = batch
    """What torch's DataLoader calls with the indices of a batch."""


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
        rows, valid = chunks_of(episode, horizon)
        if any(relative):
            rows = rows - np.where(relative, episode.proprioception[:, None, : len(relative)], 0.0)
        actions.update(rows, valid[..., None])
    return proprioception.statistics(*quantiles), actions.statistics(*quantiles)


def chunks_of(episode: Episode, horizon: int) -> tuple[FloatArray, BoolArray]:
    """Every chunk of an episode: rows `(T, H, columns)`, the last one held behind the end, and validity `(T, H)`."""
    index = np.arange(len(episode))[:, None] + np.arange(horizon)
    return episode.actions[np.minimum(index, len(episode) - 1)], index < len(episode)


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
        if missing := [key for key in _KEYS if key not in data]:
            raise DatasetError(f"{index} lacks {', '.join(missing)}; give packed demonstrations, no scenes")
        self._folder = folder
        self.embodiment, self.period_ns = str(data["embodiment"]), int(data["period_ns"])
        self.views = tuple(str(view) for view in data["views"])
        self.proprioception_names = tuple(data["proprioception_names"])
        self.action_names = tuple(data["action_names"])
        self.representation = Representation.of(data.get("representation", Representation.JOINT_POSITION.label))
        lengths = [int(e["frames"]) for e in data["episodes"]]
        self._start = np.concatenate([[0], np.cumsum(lengths)])
        total = int(self._start[-1])
        proprioception = _load(folder / "proprioception.npy", total, len(self.proprioception_names))
        actions = _load(folder / "actions.npy", total, len(self.action_names))
        self._images = {view: _map_view(folder, view, total) for view in self.views}
        self.episodes: Sequence[Episode] = [
            Episode(
                str(e["identifier"]),
                str(e["instruction"]),
                proprioception[a:b],
                actions[a:b],
                str(e.get("take", "")),
                (str(e["scene"][0]), int(e["scene"][1])) if "scene" in e else None,
            )
            for e, a, b in zip(data["episodes"], self._start[:-1], self._start[1:], strict=True)
        ]

    def digest(self) -> str:
        """Changes with the data: SHA-256 of the index, and of sizes and times of the arrays."""
        lines = [(self._folder / "index.json").read_text(encoding="utf-8")]
        for path in sorted(self._folder.glob("*.npy")):
            stat = path.stat()
            lines.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n")
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def images(self, episode: int, frame: int) -> Mapping[str, ImageArray]:
        """Views of one frame."""
        return {view: np.asarray(array[int(self._start[episode]) + frame]) for view, array in self._images.items()}

    def side_px(self, view: str) -> int | None:
        """Side of a view's images; None if they are not square."""
        height, width = self._images[view].shape[1:3]
        return height if height == width else None

    def gather(
        self, views: Sequence[str], episodes: IndexArray, frames: IndexArray, side: int
    ) -> tuple[ImageArray, BoolArray]:
        """Many frames at once, as the function `gather`; fastest where they are stored at this size."""
        rows = self._start[episodes] + frames
        images = np.zeros((len(rows), len(views), side, side, 3), np.uint8)
        present = np.zeros((len(rows), len(views)), bool)
        for v, view in enumerate(views):
            if view not in self._images:
                continue
            array, present[:, v] = self._images[view], True
            if array.shape[1:3] == (side, side):
                images[:, v] = array[rows]
            else:
                images[:, v] = [resize_with_pad(np.asarray(array[row]), side, view) for row in rows]
        return images, present


def write_packed(
    source: Source, folder: Path, progress: Callable[[int, int], None] | None = None, threads: int = 1
) -> None:
    """Write a source as a folder of arrays; the folder appears only when it is whole.

    Args:
        source: demonstrations.
        folder: to be made.
        progress: called after each episode with the number of frames done and of all frames.
        threads: that read episodes.

    Raises:
        DatasetError: the folder exists, or a view is missing or of another size in a frame.

    """
    if folder.exists():
        raise DatasetError(f"{folder} exists; give a new folder")
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    lengths = [len(episode) for episode in source.episodes]
    np.save(partial / "proprioception.npy", np.concatenate([e.proprioception for e in source.episodes]))
    np.save(partial / "actions.npy", np.concatenate([e.actions for e in source.episodes]))
    arrays: dict[str, NDArray[np.uint8]] = {}
    for view, image in source.images(0, 0).items():
        path, shape = partial / f"view_{_checked(view)}.npy", (sum(lengths), *image.shape)
        arrays[view] = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    pool, starts = ThreadPoolExecutor(threads), np.cumsum([0, *lengths]).tolist()
    try:
        filled = pool.map(lambda e: _fill(source, e, starts[e], arrays), range(len(lengths)))
        for done, _ in zip(np.cumsum(lengths).tolist(), filled, strict=True):
            if progress:
                progress(done, sum(lengths))
    finally:
        pool.shutdown(cancel_futures=True)
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]
    index = {
        "embodiment": source.embodiment,
        "period_ns": source.period_ns,
        "views": list(source.views),
        "proprioception_names": list(source.proprioception_names),
        "action_names": list(source.action_names),
        "representation": source.representation.label,
        "episodes": [
            {"identifier": e.identifier, "instruction": e.instruction, "frames": len(e)}
            | ({"take": e.take} if e.take != e.identifier else {})
            | ({"scene": e.scene} if e.scene else {})
            for e in source.episodes
        ],
    }
    (partial / "index.json").write_text(json.dumps(index), encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        sync(path)
    partial.replace(folder)
    sync(folder.parent)


def partial_of(folder: Path) -> Path:
    """Where `write_packed` writes a folder that is not whole yet."""
    return folder.with_name(folder.name + ".partial")


def _fill(source: Source, episode: int, start: int, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    """Copy an episode's images to the rows from `start` on."""
    for frame in range(len(source.episodes[episode])):
        views = source.images(episode, frame)
        for view in source.views:
            where = f"episode {source.episodes[episode].identifier}, frame {frame}"
            if view not in views or view not in arrays:
                raise DatasetError(f"{where}: no view {view!r}")
            if views[view].shape != arrays[view].shape[1:]:
                raise DatasetError(f"{where}: view {view!r} is {views[view].shape}, before it {arrays[view].shape[1:]}")
            arrays[view][start + frame] = views[view]


def _load(path: Path, rows: int, columns: int) -> FloatArray:
    table: FloatArray = _read(path)
    if table.shape != (rows, columns):
        raise DatasetError(f"{path} has shape {table.shape}; index.json says {(rows, columns)}")
    return table.astype(np.float64)


def _map_view(folder: Path, view: str, frames: int) -> NDArray[np.uint8]:
    path = folder / f"view_{_checked(view)}.npy"
    array: NDArray[np.uint8] = _read(path, "r")
    if array.ndim != 4 or len(array) != frames or array.shape[3] != 3 or array.dtype != np.uint8:
        raise DatasetError(f"{path} is {array.dtype} {array.shape}; needed is uint8 ({frames}, height, width, 3)")
    return array


def _read(path: Path, mode: Literal["r"] | None = None) -> Any:
    try:
        return np.load(path, mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None


def _checked(view: str) -> str:
    if not _VIEW.fullmatch(view):
        raise DatasetError(f"view name {view[:80]!r}; allowed is [a-z0-9_]{{1,64}}")
    return view
