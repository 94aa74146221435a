"""Messages that never arrived, counted from the gaps in their publishers' sequence numbers."""

from __future__ import annotations

import re
from collections import Counter


class LossCounter:
    """Counts lost messages per topic.

    Each publisher counts its own messages; DDS hands that number and the publisher's identifier to the subscriber.
    The first message of a publisher sets its baseline, since what it sent before it was matched was not lost.

    losses = LossCounter()
    losses.received("/a", b"p", 7)   # 0, the baseline
    losses.received("/a", b"p", 10)  # 2: 8 and 9 are missing
    losses.received("/a", b"p", 1)   # 0: counts from the start again, so it is a new baseline
    losses.received("/b", b"q", None)  # 0, but what /b has lost is not known: `unnumbered` counts it
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, bytes], int] = {}
        self.by_topic: Counter[str] = Counter()
        self.unnumbered: Counter[str] = Counter()

    def received(self, topic: str, publisher: bytes, sequence: int | None) -> int:
        """Note a message, return how many were missed before it.

        `sequence` counts its publisher's messages from 1; 0 or None where the middleware does not tell.
        """
        if not sequence:
            self.unnumbered[topic] += 1
            return 0
        last = self._last.get((topic, publisher))
        self._last[topic, publisher] = sequence
        missed = max(0, sequence - last - 1) if last is not None else 0
        if missed:
            self.by_topic[topic] += missed
        return missed

    def dropped(self, topic: str) -> None:
        """Note a message that arrived but could not be stored."""
        self.by_topic[topic] += 1

    def start(self) -> None:
        """Count from zero; the publishers' baselines stay, so that a loss across the start is not overlooked."""
        self.by_topic.clear()
        self.unnumbered.clear()

    def forget(self) -> None:
        """Take every publisher's baseline anew. While both sides still find each other, single messages come from a
        publisher that does not know of this subscriber yet, and those after them were never sent to it.
        """
        self._last.clear()

    @property
    def total(self) -> int:
        """Lost messages of all topics."""
        return sum(self.by_topic.values())

    def known(self) -> dict[str, int | None]:
        """Lost messages per topic, None where they are not known; topics without a loss are left out."""
        return {**self.by_topic, **dict.fromkeys(self.unnumbered)}


def describe_losses(lost: int, unnumbered: int) -> str:
    """`3`; `unknown` or `at least 3` if some messages came without their publisher's number."""
    if not unnumbered:
        return str(lost)
    return f"at least {lost}" if lost else "unknown"


def read_losses(text: str) -> tuple[int, bool]:
    """What `describe_losses` said: messages known to be lost, and whether these are all of them.

    `3` is (3, True), `at least 3` (3, False); `unknown`, and anything else, is (0, False).
    """
    found = re.fullmatch(r"(at least )?([0-9]{1,19})", text, re.ASCII)
    return (int(found.group(2)), not found.group(1)) if found else (0, False)
