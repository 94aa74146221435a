import os
import struct

from e0_ros.pedal import Pedal


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
