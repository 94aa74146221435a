"""Single keys from a terminal, without echo and without waiting; or characters from a pipe."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import TextIO


class Keyboard:
    """Use it as a context: the terminal is as it was afterwards."""

    def __init__(self, stream: TextIO = sys.stdin) -> None:
        self._handle = stream.fileno()
        self._terminal = os.isatty(self._handle)
        self._before: list[object] = []
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

    def key(self) -> str:
        """The next key that was pressed; empty: none. Line ends count as none."""
        if self.ended or not select.select([self._handle], [], [], 0.0)[0]:
            return ""
        pressed = os.read(self._handle, 1)
        self.ended = not pressed
        return pressed.decode("ascii", "replace").strip("\r\n")

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
