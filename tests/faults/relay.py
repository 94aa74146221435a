"""A source of chunks, an unreliable link and an executor, driven by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from e0_policy.types import ActionChunk
from tests.core.driven import MS, START, Driven, wave


class Link:
    """Loses, doubles and delays chunks, each by its own time, so that some overtake others. Seeded."""

    def __init__(self, seed: int, drop: float = 0.0, double: float = 0.0, worst_ms: float = 0.0) -> None:
        self._rng, self._drop, self._double, self._worst_ns = np.random.default_rng(seed), drop, double, worst_ms * MS
        self._wire: list[tuple[int, int, ActionChunk]] = []
        self.sent = self.lost = 0

    def send(self, chunk: ActionChunk, now_ns: int) -> None:
        lost, doubled = self._rng.random(2) < (self._drop, self._double)
        self.lost += bool(lost)
        for copy in range((not lost) * (1 + int(doubled))):
            self._wire.append((now_ns + int(self._rng.uniform(0, self._worst_ns)), 2 * self.sent + copy, chunk))
        self.sent += 1

    def due(self, now_ns: int) -> list[ActionChunk]:
        arrived = sorted(entry for entry in self._wire if entry[0] <= now_ns)
        self._wire = [entry for entry in self._wire if entry[0] > now_ns]
        return [chunk for *_, chunk in arrived]


class Run:
    """What came of it: chunks that were followed, in order, with their age when they were first; the path."""

    def __init__(self) -> None:
        self.followed: list[int] = []
        self.oldest_ns = 0
        self.positions: list[np.ndarray] = []
        self.held = 0


def drive(
    d: Driven,
    link: Link,
    chunks: int,
    every_ms: int = 20,
    rows: int = 20,
    period_ms: int = 50,
    keep_path: bool = False,
    look: Callable[[], None] = lambda: None,
) -> Run:
    """A policy that plans one smooth motion anew every `every_ms`; each chunk tells the same motion from its t0 on."""
    run = Run()
    for sequence in range(chunks):
        t_s = (d.now_ns - START) / 1e9 + np.arange(rows) * period_ms / 1e3
        chunk = d.chunk(wave(d, t_s), sequence, period_ns=period_ms * MS, in_reply_to_ns=d.now_ns)
        link.send(chunk, d.now_ns)
        for _ in range(every_ms // 4):
            for arrived in link.due(d.now_ns):
                d.offer(arrived)
            tick = d.tick()
            followed = tick.status.chunk
            if followed and (not run.followed or followed.sequence != run.followed[-1]):
                run.followed.append(followed.sequence)
                run.oldest_ns = max(run.oldest_ns, d.now_ns - followed.t0_ns)
            run.held += tick.status.mode.name == "HOLD"
            d.play(4)
            look()
        if keep_path:
            run.positions += d.positions[-every_ms:]
        del d.positions[:-2], d.ticks[:]
    return run
