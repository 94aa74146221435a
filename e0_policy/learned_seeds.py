"""Which scenes of a simulator a policy has learned from, so that an evaluation tells when it meets them again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from e0_policy.dataset import Episode

HELD_OUT = "held_out"
"""Where a checkpoint's `training` names the takes that it was validated on."""
LEARNED = "learned_seeds"
"""Where a checkpoint's `training` holds them: seeds by task, of all episodes, those of the validation too, and of
the checkpoint that it started from."""


def seed_ranges(seeds: Iterable[int]) -> str:
    """Seeds in short, `A:B` without B: `0:100,200:210`."""
    known = set(seeds)
    starts, ends = (sorted(s for s in known if s - 1 not in known), sorted(s + 1 for s in known if s + 1 not in known))
    return ",".join(f"{a}:{b}" for a, b in zip(starts, ends, strict=True))


def learned_seeds(episodes: Sequence[Episode]) -> dict[str, str]:
    """Seeds of demonstrations by task, in short."""
    scenes = [episode.scene for episode in episodes if episode.scene]
    return {task: seed_ranges(s for t, s in scenes if t == task) for task in sorted({task for task, _ in scenes})}


def merged(*learned: Mapping[str, str]) -> dict[str, str]:
    """Seeds by task of several, in short."""
    tasks = sorted({task for one in learned for task in one})
    ranges = {task: [part for one in learned for part in _ranges(one, task)] for task in tasks}
    return {task: seed_ranges(seed for a, b in parts for seed in range(a, b)) for task, parts in ranges.items()}


def met_again(training: Mapping[str, Any], task: str, seeds: Sequence[int]) -> list[int]:
    """Those of some seeds of a task that a policy has learned from, by its checkpoint's `training`; [] if unknown."""
    ranges = _ranges(training.get(LEARNED, {}), task)
    return [seed for seed in seeds if any(a <= seed < b for a, b in ranges)]


def _ranges(learned: Mapping[str, str], task: str) -> list[tuple[int, int]]:
    parts = [part.partition(":") for part in learned.get(task, "").split(",") if part]
    return [(int(a), int(b)) for a, _, b in parts]
