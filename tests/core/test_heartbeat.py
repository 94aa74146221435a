import pytest

from e0_ros.config import ConfigError
from e0_ros.core.heartbeat import Heartbeat, HeartbeatConfig

MS = 1_000_000


def test_the_example_of_the_docstring() -> None:
    heartbeat = Heartbeat(HeartbeatConfig())
    heartbeat.hear(True, 0)
    assert heartbeat.cause(200 * MS) == ""
    assert heartbeat.cause(201 * MS) == "the heartbeat is silent for 201 ms; allowed is 200 ms"


def test_one_that_was_never_heard_stops_nothing_but_may_be_required() -> None:
    assert Heartbeat(HeartbeatConfig()).cause(10**12) == "" == Heartbeat(HeartbeatConfig()).missing(10**12)
    required = Heartbeat(HeartbeatConfig(heartbeat_required=True))
    assert "start e0 estop" in required.missing(10**12) and required.cause(10**12) == ""
    required.hear(True, 10**12)
    assert required.missing(10**12) == ""


def test_a_pressed_stop_cannot_be_released_by_a_reset_and_a_lost_heartbeat_can() -> None:
    heartbeat = Heartbeat(HeartbeatConfig())
    heartbeat.hear(False, 0)
    assert heartbeat.cause(1) == heartbeat.release(1) == heartbeat.missing(1) == "the emergency stop is pressed"
    heartbeat.hear(True, 10 * MS)
    assert heartbeat.release(11 * MS) == "" == heartbeat.cause(11 * MS)
    assert heartbeat.cause(300 * MS) and heartbeat.missing(300 * MS)
    assert heartbeat.release(300 * MS) == "" == heartbeat.missing(300 * MS)
    heartbeat.hear(False, 400 * MS)
    assert heartbeat.release(700 * MS) == "", "whoever pressed it is gone, and a reset is explicit"


def test_a_limit_shorter_than_a_beat_is_an_error() -> None:
    with pytest.raises(ConfigError, match="heartbeat_ms"):
        HeartbeatConfig(heartbeat_ms=1.0)
