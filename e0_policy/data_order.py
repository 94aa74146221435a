"""Which episodes are held out, and which samples each training step sees: functions of a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from e0_policy.dataset import DatasetError


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


def split_takes(takes: Sequence[str], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Training and validation episodes; whole takes, so that no validation frame has a twin in training.

    Which takes are held out is drawn by their names, so that nearly all keep their side when others come: a training
    that goes on from a checkpoint with more data is hardly validated on what that one has learned.

    Args:
        takes: of each episode; episodes of one take are on the same side.
        fraction: of the takes that is held out.
        seed: of the draw.

    Raises:
        DatasetError: too few takes for the fraction.

    """
    drawn = sorted(set(takes), key=lambda take: hashlib.sha256(f"{seed} {take}".encode()).digest())
    held = set(drawn[: _held_out(len(drawn), fraction)])
    sides: tuple[list[int], list[int]] = ([], [])
    for episode, take in enumerate(takes):
        sides[take in held].append(episode)
    return sides


def split_episodes(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Training and validation episodes, of which each is a take of its own.

    Raises:
        DatasetError: too few episodes for the fraction.

    """
    held = _held_out(count, fraction)
    order = np.random.default_rng((seed, count)).permutation(count)
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


def _held_out(count: int, fraction: float) -> int:
    held = round(count * fraction) or int(fraction > 0)
    if count - held < 1:
        raise DatasetError(f"{count} episodes with {fraction:.0%} held out leave none for training")
    return held
