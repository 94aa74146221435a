"""Topics that flowed and then stopped, while somebody counts on them."""

from __future__ import annotations

from collections.abc import Iterable


class Silence:
    """Watches topics that never pause while their publishers live. Times are those of one steady clock.

    silence = Silence(["/a", "/b"], limit_ns=500)
    silence.heard("/a", 0)
    silence.of(400)  # []
    silence.of(600)  # ["/a"]; "/b" has never been heard, so nobody counts on it
    """

    def __init__(self, topics: Iterable[str], limit_ns: int) -> None:
        self._topics, self._limit_ns = frozenset(topics), limit_ns
        self._heard: dict[str, int] = {}

    def heard(self, topic: str, now_ns: int) -> None:
        """Note a message."""
        if topic in self._topics:
            self._heard[topic] = now_ns

    def start(self, now_ns: int) -> None:
        """Count from now on; a topic that fell silent before is forgotten."""
        self._heard = {topic: now_ns for topic, then_ns in self._heard.items() if now_ns - then_ns <= self._limit_ns}

    def of(self, now_ns: int) -> list[str]:
        """Topics that have been silent for longer than the limit, in the order in which they fell silent."""
        silent = [(then_ns, topic) for topic, then_ns in self._heard.items() if now_ns - then_ns > self._limit_ns]
        return [topic for _, topic in sorted(silent)]
