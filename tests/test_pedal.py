import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_ros.config import ConfigError
from e0_ros.core.take_session import KEYS
from e0_ros.pedal import CODES, PEDAL_KEYS, Pedal, PedalKeys, open_pedal, pedal_keys

ACTIONS = {meaning: key for key, meaning in KEYS.items()}


def event(key, value, kind=1):
    return struct.pack("llHHi", 0, 0, kind, key, value)


def test_pressed_while_a_key_is_down_and_not_when_it_is_gone(tmp_path):
    path = tmp_path / "pedal"
    os.mkfifo(path)
    pedal = Pedal(str(path))
    wire = os.open(path, os.O_WRONLY)
    assert not pedal.pressed()
    os.write(wire, event(30, 1) + event(0, 0, kind=0))
    assert pedal.pressed()
    os.write(wire, event(30, 2))  # autorepeat
    assert pedal.pressed()
    os.write(wire, event(31, 1) + event(30, 0))
    assert pedal.pressed()
    os.write(wire, event(31, 0))
    assert not pedal.pressed()
    os.write(wire, event(30, 1))
    assert pedal.pressed()
    os.close(wire)
    assert not pedal.pressed()
    assert pedal.gone
    pedal.close()


def test_each_press_types_its_key_once(tmp_path):
    path = tmp_path / "pedal"
    os.mkfifo(path)
    pedal = open_pedal(str(path))
    typed, wire = PedalKeys(pedal, pedal_keys(PEDAL_KEYS, ACTIONS)), os.open(path, os.O_WRONLY)
    assert typed.key() == ""
    os.write(wire, event(30, 1) + event(30, 2) + event(30, 0) + event(99, 1) + event(46, 1))
    assert [typed.key() for _ in range(3)] == [" ", "r", ""]
    os.close(wire)
    assert typed.key() == "" and pedal.gone
    pedal.close()


@given(st.dictionaries(st.sampled_from(sorted(CODES)), st.sampled_from(sorted(ACTIONS)), min_size=1))
def test_any_key_does_any_action(wanted):
    text = ",".join(f"{key}={action}" for key, action in wanted.items())
    assert pedal_keys(text, ACTIONS) == {CODES[key]: ACTIONS[action] for key, action in wanted.items()}


def test_codes_are_those_of_linux():
    assert [CODES[key] for key in "a1qzm0"] == [30, 2, 16, 44, 50, 11]


@pytest.mark.parametrize("text", ["a", "a=", "=start", "F13=start", "a=begin", ""])
def test_what_means_nothing_is_refused(text):
    with pytest.raises(ConfigError, match="pedal keys: "):
        pedal_keys(text, ACTIONS)


def test_a_pedal_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere cannot be opened: No such file"):
        open_pedal(str(tmp_path / "nowhere"))
