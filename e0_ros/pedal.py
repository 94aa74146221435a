"""A foot pedal: any Linux input device with keys (linux/input.h: struct input_event), as a deadman switch or for takes.

pedal_keys("a=start,c=re-record", {"start": " ", "re-record": "r"})    # {30: " ", 46: "r"}
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Mapping

from e0_ros.config import ConfigError, closest

PEDAL_KEYS = "a=start,b=success,c=re-record"
"""What the keys of a pedal with three switches, which types a, b and c, do by default."""
_EVENT = struct.Struct("llHHi")
_KEY = 1
_ROWS = {2: "1234567890", 16: "qwertyuiop", 30: "asdfghjkl", 44: "zxcvbnm"}
CODES = {key: first + i for first, row in _ROWS.items() for i, key in enumerate(row)}
"""Codes of the keys that pedals send, from linux/input-event-codes.h."""


class Pedal:
    """Pressed while at least one of its keys is down. A pedal that is gone is not pressed.

    Args:
        path: /dev/input/by-id/...-event-kbd

    Raises:
        OSError: it cannot be opened.

    """

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._down: set[int] = set()
        self.gone = False

    def pressed(self) -> bool:
        """Whether it is pressed now."""
        self.presses()
        return bool(self._down) and not self.gone

    def presses(self) -> list[int]:
        """Codes of the keys that went down since the last call; one that repeats because it is held counts not."""
        went_down = []
        try:
            while len(data := os.read(self._handle, _EVENT.size)) == _EVENT.size:
                _, _, kind, key, value = _EVENT.unpack(data)
                if kind == _KEY and value in (0, 1):
                    (self._down.add if value else self._down.discard)(key)
                    went_down += [key] * value
            self.gone = True
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True
        return went_down

    def close(self) -> None:
        """Close the device."""
        os.close(self._handle)


class PedalKeys:
    """A pedal that types the keys of a recording."""

    def __init__(self, pedal: Pedal, keys: Mapping[int, str]) -> None:
        self._pedal, self._keys = pedal, keys
        self._typed: deque[str] = deque()

    def key(self) -> str:
        """The next key; empty: none."""
        self._typed += [self._keys[code] for code in self._pedal.presses() if code in self._keys]
        return self._typed.popleft() if self._typed else ""


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
        raise ConfigError(f"pedal {path} cannot be opened: {error.strerror}; are you in the group input?") from None
