"""What a terminal sends for one key is one key, and no letters that mean something."""

import os
from collections.abc import Iterator

import pytest

from e0_ros.core.take_session import Refused, TakeSession
from e0_ros.keyboard import ESCAPE, Keyboard

SEQUENCES = {
    "Home": "\x1b[H",
    "Left": "\x1b[D",
    "Down, application mode": "\x1bOB",
    "F3": "\x1bOR",
    "F4, Linux's console": "\x1b[[D",
    "F5": "\x1b[15~",
    "Ctrl-Left": "\x1b[1;5D",
    "Alt-d": "\x1bd",
    "Alt-Left": "\x1b\x1b[D",
}


@pytest.fixture
def typed() -> Iterator[tuple[int, Keyboard]]:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream, Keyboard(stream) as keyboard:
        yield writing, keyboard
    os.close(writing)


def keys(keyboard: Keyboard) -> list[str]:
    return list(iter(keyboard.key, ""))


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
def test_a_key_that_sends_a_sequence_is_one_key_and_those_around_it_count(
    typed: tuple[int, Keyboard], sequence: str
) -> None:
    handle, keyboard = typed
    os.write(handle, f"a{sequence}s{sequence}".encode())
    assert keys(keyboard) == ["a", ESCAPE, "s", ESCAPE]
    assert isinstance(TakeSession().key(ESCAPE), Refused)


@pytest.mark.parametrize("begun", ["\x1b", "\x1b[", "\x1b[1;", "\x1bO"])
def test_a_sequence_that_is_cut_off_holds_nothing_up(typed: tuple[int, Keyboard], begun: str) -> None:
    handle, keyboard = typed
    os.write(handle, begun.encode())
    assert keys(keyboard) == [ESCAPE]  # `e0 estop` stops by it
    os.write(handle, b"s")
    assert keys(keyboard) == ["s"]


def test_enter_is_a_key_where_every_key_counts(typed: tuple[int, Keyboard]) -> None:
    handle, keyboard = typed
    os.write(handle, b"\n\n")
    assert [keyboard.key(enter=True), keyboard.key(), keyboard.key(enter=True)] == ["\n", "", ""]
