"""A hand-over of one item between two threads, in which the latest wins."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """`put` never waits and replaces an item that nobody took; `take` waits for one."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self.replaced = 0

    def put(self, item: T) -> bool:
        """Leave an item; True if it replaced one, which is counted in `replaced`."""
        with self._ready:
            replaced = self._item is not None
            self.replaced += replaced
            self._item = item
            self._ready.notify()
            return replaced

    def take(self, timeout_s: float | None = None) -> T | None:
        """The item, as soon as there is one; None after the timeout or once the mailbox is closed."""
        with self._ready:
            self._ready.wait_for(lambda: self._item is not None or self._closed, timeout_s)
            item, self._item = self._item, None
            return None if self._closed else item

    def clear(self) -> None:
        """Throw away an item that nobody took."""
        with self._ready:
            self._item = None

    def close(self) -> None:
        """Wake whoever waits and hand out nothing more."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed
