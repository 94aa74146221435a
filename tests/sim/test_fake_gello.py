"""The fake leader against the real dynamixel-sdk, and its bytes against the SDK's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sdk = pytest.importorskip("dynamixel_sdk", reason="dynamixel-sdk is not installed")

from e0_policy.embodiment import load_embodiment  # noqa: E402
from e0_policy.resources import config_dir  # noqa: E402
from e0_ros.core.gello_geometry import joints, load_calibration, nearest, opening, ticks_to_rad  # noqa: E402
from e0_ros.dynamixel import BusError, BusFault, LeaderBus, Sample, read_time_s  # noqa: E402
from sim.dynamixel_servos import PING, WRITE, Servos, crc16, packet, take_packet  # noqa: E402
from sim.fake_gello import FakeConfig, FakeGello  # noqa: E402

CALIBRATION = load_calibration(config_dir() / "gello.yaml")
HOME = load_embodiment("fr3").home
STILL = FakeConfig(still_s=1e6, noise_ticks=0.0)
PATIENCE_S = 2.0


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200))
def test_crc_is_the_sdks(data: bytes) -> None:
    assert crc16(data) == sdk.Protocol2PacketHandler().updateCRC(0, list(data), len(data))


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=40), st.integers(0, 252), st.binary(max_size=5).filter(lambda b: b"\xff" not in b))
def test_packets_survive_stuffing_garbage_and_pieces(parameters: bytes, servo: int, garbage: bytes) -> None:
    buffer, found = bytearray(), []
    for byte in garbage + packet(servo, 0x03, parameters) * 2:
        buffer.append(byte)
        found.append(take_packet(buffer))
    assert [f for f in found if f] == [(servo, 0x03, parameters, True)] * 2


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([0xFF, 0xFD, 0x00]), max_size=20).map(bytes))
def test_stuffing_is_the_sdks(parameters: bytes) -> None:
    """Against what the SDK sends; its receiver loses bytes of some packets with two stuffed places."""
    whole = packet(7, 0x55, parameters)
    plain = [*whole[:5], len(parameters) + 3, 0, 0x55, *parameters, 0, 0]
    assert bytes(sdk.Protocol2PacketHandler().addStuffing(plain))[4:-2] == whole[4:-2]


def test_a_servo_says_what_is_wrong_with_a_request() -> None:
    servos = Servos((1, 2), lambda: (10, -3))

    def error(request: bytes) -> int:
        _, instruction, parameters, sound = take_packet(bytearray(servos.answer(request)))
        assert (instruction, sound) == (0x55, True)
        return parameters[0]

    broken = bytearray(packet(1, PING, b""))
    broken[-1] ^= 1
    assert error(bytes(broken)) == 3
    assert error(packet(1, 0x77, b"")) == 2
    assert error(packet(1, 0x02, b"\x00\x01\x04\x00")) == 4
    assert error(packet(1, 0x02, b"\x00")) == 5
    assert error(packet(1, WRITE, b"\x40\x00\x02")) == 4
    assert error(packet(1, WRITE, b"\x07\x00\x02")) == 7
    assert error(packet(1, WRITE, b"\x08\x00\x03")) == 7, "EEPROM, and its torque is on"
    assert error(packet(1, WRITE, b"\x40\x00\x00")) == 0 and servos.baud_rate(1) == 57600
    assert error(packet(1, WRITE, b"\x08\x00\x07")) == 4
    assert error(packet(1, WRITE, b"\x08\x00\x03")) == 0 and servos.baud_rate(1) == 1000000
    assert servos.answer(packet(1, PING, b""), 57600) == b"" and servos.answer(packet(2, PING, b""), 57600)
    assert servos.answer(packet(3, PING, b"")) == b""


@pytest.fixture
def leader() -> Iterator[FakeGello]:
    with FakeGello(replace(STILL, turns=3), CALIBRATION) as fake:
        yield fake


def open_bus(fake: FakeGello) -> LeaderBus:
    return LeaderBus(fake.port, CALIBRATION.baud_rate, CALIBRATION.ids, patience_s=PATIENCE_S)


def test_the_sdk_reads_the_leaders_joints(leader: FakeGello) -> None:
    assert leader.servos.torque(3)
    bus = open_bus(leader)
    assert not any(leader.servos.torque(i) for i in CALIBRATION.ids)
    sample = bus.read(time.monotonic_ns)
    assert isinstance(sample, Sample)
    raw = ticks_to_rad(sample.ticks)
    np.testing.assert_allclose(nearest(joints(CALIBRATION, raw), HOME), HOME, atol=1e-3)
    assert opening(CALIBRATION, raw) > 0.99
    assert 0 <= time.monotonic_ns() - sample.stamp_ns < 10**9
    bus.close()


def test_a_dropout_is_a_fault_and_the_next_reading_is_sound(leader: FakeGello) -> None:
    bus = open_bus(leader)
    leader.drop(60.0)
    fault = bus.read(time.monotonic_ns)
    assert fault == BusFault("servo 1 gave no position (There is no status packet)")
    leader.servos.silent = {5}
    leader.drop(0.0)
    assert bus.read(time.monotonic_ns) == BusFault("servo 5 gave no position (There is no status packet)")
    leader.servos.silent = set()
    assert all(isinstance(bus.read(time.monotonic_ns), Sample) for _ in range(5))
    bus.close()


def test_an_alarmed_servo_is_named_with_its_error(leader: FakeGello) -> None:
    bus = open_bus(leader)
    leader.servos.alarm(4, 0b100000)
    assert bus.read(time.monotonic_ns) == BusFault("servo 4 reports a hardware error: overload; power-cycle it")
    bus.close()


def test_a_servo_that_does_not_answer_is_named_at_once(leader: FakeGello) -> None:
    leader.servos.silent = {2, 6}
    with pytest.raises(BusError, match=r"servo 2, 6 does not answer$"):
        open_bus(leader)
    with pytest.raises(BusError, match="cannot be opened"):
        LeaderBus("/dev/nowhere", 57600, (1,))


def test_a_port_that_is_gone_is_told_apart() -> None:
    with FakeGello(STILL, CALIBRATION) as fake:
        bus = open_bus(fake)
    fault = bus.read(time.monotonic_ns)
    assert isinstance(fault, BusFault)
    assert fault.lost


def test_what_a_baud_rate_allows() -> None:
    assert 1 / read_time_s(8, 57600) < 40
    assert 1 / read_time_s(8, 1_000_000) > 150
