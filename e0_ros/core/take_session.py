"""What the keys of an interactive recording mean at each moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KEYS = {
    " ": "start",
    "s": "success",
    "f": "failure",
    "d": "discard",
    "r": "re-record",
    "t": "take over",
    "b": "hand back",
    "v": "recover",
    "h": "home",
    "x": "step",
    "+": "faster",
    "-": "slower",
    "i": "next instruction",
    "n": "new instruction",
    "q": "quit",
}
"""Key and what it does. `discard` and `re-record` mean the running take, between takes the last one."""


@dataclass(frozen=True)
class Start:
    """Begin a take; `again` with the scene of the take before, after that was thrown away."""

    again: bool = False


@dataclass(frozen=True)
class End:
    """End the running take; `again`: throw it away and begin anew."""

    outcome: str
    again: bool = False


@dataclass(frozen=True)
class DiscardLast:
    """Throw away the last take, which is closed already; `again`: and begin anew."""

    again: bool = False


@dataclass(frozen=True)
class Instruct:
    """The instruction has changed; empty: ask for one."""

    text: str


@dataclass(frozen=True)
class TakeOver:
    """A human takes the arm from the policy."""


@dataclass(frozen=True)
class HandBack:
    """The policy goes on."""


@dataclass(frozen=True)
class Recover:
    """The arm has stopped by itself and is to be brought back."""


@dataclass(frozen=True)
class Home:
    """The arm is to go to its home pose."""


@dataclass(frozen=True)
class Release:
    """In step-through the next plan is to be followed."""


@dataclass(frozen=True)
class ChangeSpeed:
    """Plans are to be followed faster or slower."""

    faster: bool


@dataclass(frozen=True)
class Quit:
    """Leave."""


@dataclass(frozen=True)
class Refused:
    """The key means nothing now, and why."""

    reason: str


Action = (
    Start | End | DiscardLast | Instruct | TakeOver | HandBack | Recover | Home | Release | ChangeSpeed | Quit | Refused
)


class TakeSession:
    """Which take runs, which was the last, and which instruction is next.

    Args:
        instructions: those to cycle through; may be empty.

    """

    def __init__(self, instructions: Sequence[str] = ()) -> None:
        self._instructions = list(instructions)
        self._index = 0
        self.recording = False
        self.last = ""
        """Bag of the last take that is kept; empty: none, or it was discarded."""

    @property
    def instruction(self) -> str:
        """The instruction of the next take; empty: none is known."""
        return self._instructions[self._index] if self._instructions else ""

    def add_instruction(self, text: str) -> None:
        """A new instruction, which is the next."""
        self._instructions.append(text)
        self._index = len(self._instructions) - 1

    def key(self, key: str) -> Action:
        """What a key asks for; nothing has changed yet."""
        meaning = KEYS.get(key.lower())
        if meaning is None:
            known = ", ".join(f"{'space' if k == ' ' else k} {text}" for k, text in KEYS.items())
            return Refused(f"no such key; {known}")
        if meaning == "step":
            return Release()
        if meaning in ("faster", "slower"):
            return ChangeSpeed(meaning == "faster")
        return self._running(meaning) if self.recording else self._idle(meaning)

    def started(self) -> None:
        """A take runs."""
        self.recording = True

    def ended(self, bag: str) -> None:
        """The take is over; `bag` is empty if it was discarded or not recorded."""
        self.recording, self.last = False, bag

    def _running(self, meaning: str) -> Action:
        if meaning in ("success", "failure", "discard"):
            return End(meaning)
        if meaning == "re-record":
            return End("discard", again=True)
        if meaning in ("take over", "hand back"):
            return TakeOver() if meaning == "take over" else HandBack()
        return Refused(f"{meaning}: end the take first (s success, f failure, d discard)")

    def _idle(self, meaning: str) -> Action:
        if meaning == "start":
            return Start()
        if meaning in ("discard", "re-record"):
            if not self.last:
                return Refused(f"{meaning}: there is no take to throw away")
            return DiscardLast(again=meaning == "re-record")
        if meaning == "next instruction":
            if len(self._instructions) < 2:
                return Refused("there is no other instruction; n takes a new one")
            self._index = (self._index + 1) % len(self._instructions)
            return Instruct(self.instruction)
        if meaning == "new instruction":
            return Instruct("")
        if meaning in ("recover", "home"):
            return Recover() if meaning == "recover" else Home()
        return Quit() if meaning == "quit" else Refused("no take is running; space starts one")
