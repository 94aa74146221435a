import errno
import fcntl
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


class Plugged:
    """A pedal on a FIFO, with time driven by hand."""

    def __init__(self, path):
        self.path, self.now_s = path, 0.0
        os.mkfifo(path)
        self.pedal = Pedal(str(path), lambda: self.now_s)
        self.wire = os.open(path, os.O_WRONLY)

    def unplug(self):
        os.close(self.wire)
        self.path.unlink()

    def plug_in(self):
        os.mkfifo(self.path)
        held = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.wire = os.open(self.path, os.O_WRONLY)
        os.close(held)


def test_an_unplugged_pedal_is_said_and_opened_again_each_second(tmp_path):
    device = Plugged(tmp_path / "pedal")
    pedal = device.pedal
    os.write(device.wire, event(30, 1))
    assert pedal.pressed() and pedal.news() == ""
    device.unplug()
    assert not pedal.pressed() and "gone" in pedal.news() and pedal.news() == ""
    device.now_s = 1.0
    assert not pedal.pressed() and pedal.gone and pedal.news() == ""
    device.plug_in()
    device.now_s = 1.9
    assert not pedal.pressed() and pedal.gone
    device.now_s = 2.0
    assert not pedal.pressed() and pedal.news().endswith("is back"), "what was down when it went is not down now"
    os.write(device.wire, event(30, 1))
    assert pedal.pressed()
    os.close(device.wire)
    pedal.close()


SYNC, DROPPED = event(0, 0, kind=0), event(3, 0, kind=0)


def test_lost_events_let_go(tmp_path):
    """The release may be among what was lost; what stands between the loss and the next report is a part only."""
    device = Plugged(tmp_path / "pedal")
    os.write(device.wire, event(30, 1) + SYNC)
    assert device.pedal.pressed()
    os.write(device.wire, DROPPED + event(30, 1))
    assert device.pedal.presses() == [] and not device.pedal.pressed()
    os.write(device.wire, event(30, 2) + SYNC)
    assert not device.pedal.pressed()
    os.write(device.wire, event(30, 1) + SYNC)
    assert device.pedal.presses() == [30] and device.pedal.pressed()
    os.close(device.wire)
    device.pedal.close()


def test_it_is_grabbed_so_that_the_terminal_does_not_hear_it(tmp_path, monkeypatch):
    """EVIOCGRAB is _IOW('E', 0x90, int) of linux/input.h."""
    os.mkfifo(tmp_path / "pedal")
    asked = []
    monkeypatch.setattr(fcntl, "ioctl", lambda handle, *words: asked.append(words))
    open_pedal(str(tmp_path / "pedal")).close()
    assert asked == [(1 << 30 | 4 << 16 | ord("E") << 8 | 0x90, 1)]

    def taken(*_):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(fcntl, "ioctl", taken)
    with pytest.raises(ConfigError, match="another program has grabbed it"):
        open_pedal(str(tmp_path / "pedal"))


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
