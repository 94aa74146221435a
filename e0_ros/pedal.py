"""A foot pedal: any Linux input device with keys (linux/input.h: struct input_event), as a deadman switch or for takes.

pedal_keys("a=start,c=re-record", {"start": " ", "re-record": "r"})    # {30: " ", 46: "r"}
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from e0_ros.config import ConfigError, closest

PEDAL_KEYS = "a=start,b=success,c=re-record"
"""What the keys of a pedal with three switches, which types a, b and c, do by default."""
REOPEN_S = 1.0
_EVENT = struct.Struct("llHHi")
_SYN, _KEY = 0, 1
_SYN_REPORT, _SYN_DROPPED = 0, 3
_EVIOCGRAB = 0x40044590
_NO_INPUT_DEVICE = (errno.ENOTTY, errno.EINVAL)
_ROWS = {2: "1234567890", 16: "qwertyuiop", 30: "asdfghjkl", 44: "zxcvbnm"}
CODES = {key: first + i for first, row in _ROWS.items() for i, key in enumerate(row)}
"""Codes of the keys that pedals send, from linux/input-event-codes.h."""


class Pedal:
    """Pressed while at least one of its keys is down. A pedal that is gone is not pressed, and opened again when it is
    back; one whose events were lost (SYN_DROPPED) is not pressed until it is pressed again.

    It is grabbed: its keys reach nobody else, in particular not the terminal that has the keyboard.

    Args:
        path: /dev/input/by-id/...-event-kbd
        clock: steady time [s].

    Raises:
        OSError: it cannot be opened, or somebody else has grabbed it (EBUSY).

    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._down: set[int] = set()
        self._lost = self._told = False
        self._reopen_s = 0.0
        self._handle: int | None = _grabbed(path)

    @property
    def gone(self) -> bool:
        """Whether it is unplugged."""
        return self._handle is None

    def pressed(self) -> bool:
        """Whether it is pressed now."""
        self.presses()
        return bool(self._down)

    def presses(self) -> list[int]:
        """Codes of the keys that went down since the last call; one that repeats because it is held counts not."""
        handle, went_down = self._reopened() if self._handle is None else self._handle, []
        if handle is None:
            return []
        try:
            while len(data := os.read(handle, _EVENT.size)) == _EVENT.size:
                _, _, kind, code, value = _EVENT.unpack(data)
                went_down += self._event(kind, code, value)
            self.close()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
        return went_down

    def news(self) -> str:
        """In words that it has gone or is back, once each; else empty."""
        if self.gone == self._told:
            return ""
        self._told = self.gone
        return f"the pedal {self._path} is " + ("gone; it is opened again when it is back" if self.gone else "back")

    def close(self) -> None:
        """Close the device."""
        if self._handle is not None:
            os.close(self._handle)
        self._handle, self._lost, self._reopen_s = None, False, self._clock() + REOPEN_S
        self._down.clear()

    def _event(self, kind: int, code: int, value: int) -> list[int]:
        if kind == _SYN and code in (_SYN_REPORT, _SYN_DROPPED):
            self._lost = code == _SYN_DROPPED  # what follows up to the next report is not whole
        if self._lost:
            self._down.clear()
        elif kind == _KEY and value in (0, 1):
            (self._down.add if value else self._down.discard)(code)
            return [code] * value
        return []

    def _reopened(self) -> int | None:
        if self._clock() >= self._reopen_s:
            self._reopen_s = self._clock() + REOPEN_S
            with suppress(OSError):
                self._handle = _grabbed(self._path)
        return self._handle


def _grabbed(path: str) -> int:
    """An open device whose events nobody else gets; what is no input device (a FIFO) is open all the same."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(handle, _EVIOCGRAB, 1)
    except OSError as error:
        if error.errno not in _NO_INPUT_DEVICE:
            os.close(handle)
            raise
    return handle


class PedalKeys:
    """A pedal that types the keys of a recording."""

    def __init__(self, pedal: Pedal, keys: Mapping[int, str]) -> None:
        self._pedal, self._keys = pedal, keys
        self._typed: deque[str] = deque()

    def key(self) -> str:
        """The next key; empty: none."""
        self._typed += [self._keys[code] for code in self._pedal.presses() if code in self._keys]
        return self._typed.popleft() if self._typed else ""

    def news(self) -> str:
        """In words that the pedal has gone or is back, once each; else empty."""
        return self._pedal.news()


def pedal_keys(text: str, actions: Mapping[str, str]) -> dict[int, str]:
    """What `KEY=ACTION,...` says: by key code what `actions` gives for the action.

    Raises:
        ConfigError: another form, no such key or no such action.

    """
    found: dict[int, str] = {}
    for word in text.split(","):
        key, equals, action = (part.strip() for part in word.partition("="))
        if not equals or key not in CODES:
            raise ConfigError(f"pedal keys: {word!r}; KEY=ACTION with a letter or digit is needed, as in {PEDAL_KEYS}")
        if action not in actions:
            raise ConfigError(f"pedal keys: no action {action!r}{closest(action, actions)}")
        found[CODES[key]] = actions[action]
    return found


def open_pedal(path: str) -> Pedal:
    """The pedal.

    Raises:
        ConfigError: it cannot be opened.

    """
    try:
        return Pedal(path)
    except OSError as error:
        cure = "another program has grabbed it" if error.errno == errno.EBUSY else "are you in the group input?"
        raise ConfigError(f"pedal {path} cannot be opened: {error.strerror}; {cure}") from None
