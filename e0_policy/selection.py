"""Parts of one or several sources, as one source: mixed, filtered by instruction, without idle frames."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from e0_policy.dataset import DatasetError, Episode, IndexArray, Source, gather
from e0_policy.transforms import BoolArray
from e0_policy.types import ImageArray, Representation

_SHARED = ("embodiment", "period_ns", "proprioception_names", "representation", "action_names")
JUMP = 5.0
"""Of a threshold of rest: more motion over frames that were left out than so many times it is no rest."""


class Selection:
    """A source made of frames of others.

    Args:
        sources: demonstrations of one embodiment with one action representation.
        episodes: for each episode its source, its number there and the frames that are left, in order.

    """

    def __init__(self, sources: Sequence[Source], episodes: Sequence[tuple[int, int, IndexArray]]) -> None:
        first = sources[0]
        self.embodiment, self.period_ns = first.embodiment, first.period_ns
        self.proprioception_names, self.action_names = first.proprioception_names, first.action_names
        self.representation = first.representation
        self.views = tuple(dict.fromkeys(view for source in sources for view in source.views))
        self._sources, self._parts = sources, list(episodes)
        prefixes = [f"{s}/" for s in range(len(sources))] if len(sources) > 1 else [""]
        self.episodes: Sequence[Episode] = [
            _cut(sources[s].episodes[e], frames, prefixes[s]) for s, e, frames in self._parts
        ]
        self._source_of = np.array([s for s, _, _ in self._parts], np.int64)
        self._episode_of = np.array([e for _, e, _ in self._parts], np.int64)

    def images(self, episode: int, frame: int) -> Mapping[str, ImageArray]:
        """Views of one frame that is left."""
        source, original, frames = self._parts[episode]
        return self._sources[source].images(original, int(frames[frame]))

    def gather(
        self, views: Sequence[str], episodes: IndexArray, frames: IndexArray, side: int
    ) -> tuple[ImageArray, BoolArray]:
        """Many frames at once, as `dataset.gather`."""
        images = np.zeros((len(episodes), len(views), side, side, 3), np.uint8)
        present = np.zeros((len(episodes), len(views)), bool)
        original = np.array([self._parts[e][2][t] for e, t in zip(episodes, frames, strict=True)], np.int64)
        for index, source in enumerate(self._sources):
            here = np.flatnonzero(self._source_of[episodes] == index)
            if here.size:
                numbers = self._episode_of[episodes[here]]
                images[here], present[here] = gather(source, views, numbers, original[here], side)
        return images, present

    def left_out(self, columns: Sequence[bool]) -> tuple[int, int, float]:
        """Frames that were left out, frames that there were, and the most that a column moved over left-out ones."""
        kept = whole = 0
        moved = 0.0
        for s, e, frames in self._parts:
            rows = self._sources[s].episodes[e].actions[:, np.asarray(columns)]
            kept, whole = kept + len(frames), whole + len(rows)
            moved = max(moved, float(np.abs(rows[frames[1:] - 1] - rows[frames[:-1]]).max(initial=0.0)))
        return whole - kept, whole, moved


def mixed(sources: Sequence[Source], names: Sequence[str]) -> Source:
    """All episodes of several sources.

    Raises:
        DatasetError: they differ in embodiment, period or columns; `names` says which they are.

    """
    for source, name in zip(sources[1:], names[1:], strict=True):
        for field in _SHARED:
            one, other = getattr(sources[0], field), getattr(source, field)
            if one != other:
                told = [each.label if isinstance(each, Representation) else each for each in (one, other)]
                raise DatasetError(f"{names[0]} has {field} {told[0]}, {name} has {told[1]}; they cannot be mixed")
    if len(sources) == 1:
        return sources[0]
    return Selection(sources, [part for s, source in enumerate(sources) for part in _all(s, source)])


def with_instructions(source: Source, patterns: Sequence[str]) -> Source:
    """The episodes whose instruction matches one of the patterns (`*` and `?` as in file names, case ignored).

    Raises:
        DatasetError: a pattern matches nothing; names the closest instruction.

    """
    found = sorted({episode.instruction for episode in source.episodes})
    for pattern in patterns:
        if not any(_matches(instruction, [pattern]) for instruction in found):
            close = difflib.get_close_matches(pattern, found, 1, 0.0)
            raise DatasetError(f"no episode has an instruction like {pattern!r}; the closest is {close[0]!r}")
    parts = [p for p in _all(0, source) if _matches(source.episodes[p[1]].instruction, patterns)]
    return Selection([source], parts)


def without_idle(source: Source, columns: Sequence[bool], threshold_rad: float) -> Source:
    """A source without the frames at which the command rests. Demonstrators pause; a policy may never leave a pause.

    Each frame is compared with the one before it, so motion that is slow enough goes as well and leaves a jump;
    `idle_words` tells of it.

    Args:
        source: the demonstrations.
        columns: action columns that `threshold_rad` is for (the joints); any change of another one is a move.
        threshold_rad: largest change from the command before that counts as rest.

    """
    limit = np.where(columns, threshold_rad, 1e-6)
    parts = []
    for index, episode in enumerate(source.episodes):
        change = np.abs(np.diff(episode.actions, axis=0)) > limit
        parts.append((0, index, np.flatnonzero(np.concatenate([[True], change.any(1)]))))
    return Selection([source], parts)


def idle_words(source: Source, columns: Sequence[bool], threshold_rad: float) -> str:
    """What `without_idle` did to its source, with a warning if slow motion was taken for rest."""
    if not isinstance(source, Selection):
        return ""
    gone, whole, moved = source.left_out(columns)
    text = f"{gone} of {whole} frames are left out as idle; at most {moved:.3g} rad are moved over between two frames"
    if moved <= JUMP * threshold_rad:
        return text
    return f"warning: {text}: slow motion was taken for rest; lower drop_idle_rad, which is {threshold_rad:g}"


def _all(index: int, source: Source) -> list[tuple[int, int, IndexArray]]:
    return [(index, e, np.arange(len(episode))) for e, episode in enumerate(source.episodes)]


def _cut(episode: Episode, frames: IndexArray, source: str) -> Episode:
    """An episode's frames; `source` tells its take from one of that name in another source."""
    if len(frames) == len(episode):
        return replace(episode, take=source + episode.take) if source else episode
    states, actions = episode.proprioception[frames], episode.actions[frames]
    return replace(episode, proprioception=states, actions=actions, take=source + episode.take)


def _matches(instruction: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(instruction.lower(), pattern.lower()) for pattern in patterns)
