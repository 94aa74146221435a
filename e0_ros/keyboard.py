"""Single keys from a terminal, without echo and without waiting; or characters from a pipe."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import TextIO

ESCAPE = "\x1b"
ESCAPE_S = 0.05
"""The bytes of one key come together; an escape that nothing follows for so long was a key of its own."""


class Keyboard:
    """Use it as a context: the terminal is as it was afterwards."""

    def __init__(self, stream: TextIO = sys.stdin) -> None:
        self._handle = stream.fileno()
        self._terminal = os.isatty(self._handle)
        self._before: list[object] = []
        self._escaped = False
        self.ended = False
        """The input is at its end."""

    def __enter__(self) -> Keyboard:
        if self._terminal:
            self._before = termios.tcgetattr(self._handle)
            tty.setcbreak(self._handle, termios.TCSADRAIN)  # keys that were pressed meanwhile count
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            termios.tcsetattr(self._handle, termios.TCSADRAIN, self._before)

    def key(self, enter: bool = False) -> str:
        """The next key that was pressed; empty: none. Line ends count as none unless `enter`.

        Arrows, Home, function keys and whatever else sends a sequence are one `ESCAPE`, told at once, and no letter.
        """
        if self._escaped:
            self._sequence()
        pressed = self._byte(0.0).decode("ascii", "replace")
        self._escaped = pressed == ESCAPE
        return pressed if enter else pressed.strip("\r\n")

    def _byte(self, wait_s: float) -> bytes:
        if self.ended or not select.select([self._handle], [], [], wait_s)[0]:
            return b""
        read = os.read(self._handle, 1)
        self.ended = not read
        return read

    def _sequence(self) -> None:
        """Take in what belongs to an escape: CSI or SS3 up to its final byte (ECMA-48, 5.4), or Alt and a key."""
        byte = self._byte(ESCAPE_S)
        while byte == ESCAPE.encode():
            byte = self._byte(ESCAPE_S)
        if byte not in (b"[", b"O"):
            return
        byte = self._byte(ESCAPE_S)
        if byte == b"[":  # function keys of Linux's console: ESC [ [ A
            byte = self._byte(ESCAPE_S)
        while byte and not 0x40 <= byte[0] <= 0x7E:
            byte = self._byte(ESCAPE_S)

    def line(self, prompt: str) -> str:
        """A line of text, with the terminal's usual editing."""
        print(prompt, end="", flush=True)
        self.__exit__()
        try:
            text = b""
            while not text.endswith(b"\n") and not self.ended:
                read = os.read(self._handle, 1)
                self.ended = not read
                text += read
        finally:
            self.__enter__()
        return text.decode("utf-8", "replace").strip()
