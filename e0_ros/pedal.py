"""A foot pedal as a deadman switch: any Linux input device with a key (linux/input.h: struct input_event)."""

from __future__ import annotations

import os
import struct

_EVENT = struct.Struct("llHHi")
_KEY = 1


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
        try:
            while len(data := os.read(self._handle, _EVENT.size)) == _EVENT.size:
                _, _, kind, key, value = _EVENT.unpack(data)
                if kind == _KEY and value in (0, 1):
                    (self._down.add if value else self._down.discard)(key)
            self.gone = True
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True
        return bool(self._down) and not self.gone

    def close(self) -> None:
        """Close the device."""
        os.close(self._handle)
