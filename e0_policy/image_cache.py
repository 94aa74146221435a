"""Images decoded and scaled once, into arrays that training maps into memory.

    <dataset>.cache/64px-<digest>/      as `write_packed` writes it, whole or not there

The images are exactly those that the policy's transform makes of the originals, so training sees the same bits.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from e0_policy.dataset import DatasetError, PackedSource, Source, gather, partial_of, write_packed
from e0_policy.types import ImageArray


class Scaled:
    """Some views of a source, scaled into squares."""

    def __init__(self, source: Source, views: Sequence[str], side: int) -> None:
        self._source, self._side = source, side
        self.embodiment, self.period_ns, self.views = source.embodiment, source.period_ns, tuple(views)
        self.proprioception_names, self.action_names = source.proprioception_names, source.action_names
        self.representation, self.episodes = source.representation, source.episodes

    def images(self, episode: int, frame: int) -> Mapping[str, ImageArray]:
        """Views of one frame."""
        images, _ = gather(self._source, self.views, np.array([episode]), np.array([frame]), self._side)
        return dict(zip(self.views, images[0], strict=True))


def cached(
    source: Source, digest: str, views: Sequence[str], side: int, folder: Path, progress: Callable[[int, int], None]
) -> PackedSource:
    """The source with its views at `side` px in mapped arrays, decoded now if they are not there yet.

    Several processes may ask at once: one decodes, the others wait.

    Args:
        source: the demonstrations.
        digest: of the data; another digest is another cache.
        views: of the source.
        side: in px.
        folder: that holds caches.
        progress: called with the number of frames done and of all frames.

    Raises:
        DatasetError: the folder cannot be written, or the disk has no room; says how much is needed.

    """
    key = hashlib.sha256(f"{digest} {' '.join(views)}".encode()).hexdigest()[:16]
    target = folder / f"{side}px-{key}"
    if not target.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(folder / f".{target.name}.lock"):
                if not target.is_dir():
                    shutil.rmtree(partial_of(target), ignore_errors=True)  # of a decoding that was killed
                    _check_room(folder, side, sum(map(len, source.episodes)) * len(views) * side * side * 3)
                    write_packed(Scaled(source, views, side), target, progress, len(os.sched_getaffinity(0)))
        except OSError as error:
            raise DatasetError(f"{folder} cannot be written ({error.strerror}); give another cache_dir") from None
    found = PackedSource(target)
    kept = zip(found.episodes, source.episodes, strict=True)  # older caches know neither takes nor scenes
    found.episodes = [replace(mine, take=theirs.take, scene=theirs.scene) for mine, theirs in kept]
    return found


def _check_room(folder: Path, side: int, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        others = ", ".join(sorted(path.name for path in folder.glob(f"{side}px-{'?' * 16}")))
        unused = f"; if nothing trains on them, remove {others}" if others else ""
        raise DatasetError(
            f"{folder}: decoded images need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free{unused}; give another "
            "cache_dir, or decode: always"
        )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    path.unlink(missing_ok=True)
