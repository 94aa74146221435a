import pytest

from e0_ros.config import ConfigError
from e0_ros.core.fci import ERROR_MEANS, FciConfig, FciReport, FciWatch, RobotMode, explained

MS = 1_000_000


def watch(mode=RobotMode.MOVE, errors=(), last=(), rate=1.0, **settings) -> FciWatch:
    made = FciWatch(FciConfig(**settings))
    made.hear(FciReport(mode, errors, last, rate), 0)
    return made


def test_only_an_arm_under_control_without_errors_is_fit() -> None:
    fit = {mode for mode in RobotMode if not watch(mode).trouble(0)}
    assert fit == {RobotMode.MOVE}
    assert watch(RobotMode.IDLE, require_move=False).trouble(0) == ""
    assert "joint_reflex" in watch(errors=("joint_reflex",)).trouble(0)


def test_a_reflex_is_named_with_its_cure_also_when_only_the_last_motion_knows_it() -> None:
    now = watch(RobotMode.REFLEX, ("cartesian_reflex",)).trouble(0)
    assert now == watch(RobotMode.REFLEX, (), ("cartesian_reflex",)).trouble(0)
    assert now.startswith("reflex: cartesian_reflex (contact")
    assert watch(RobotMode.REFLEX).trouble(0) == "reflex: no error is named"
    assert explained(("start_elbow_sign_inconsistent",)) == "start_elbow_sign_inconsistent"


def test_silence_is_a_fault_as_is_a_state_that_never_came() -> None:
    assert "robot_state_broadcaster" in FciWatch(FciConfig()).trouble(0)
    fine = watch(state_timeout_ms=100.0)
    assert fine.trouble(100 * MS) == "" and "last mode MOVE" in fine.trouble(101 * MS)
    fine.hear(FciReport(RobotMode.MOVE), 200 * MS)
    assert fine.trouble(201 * MS) == ""


def test_lost_packets_are_a_warning_while_the_arm_is_under_control() -> None:
    assert watch(rate=0.95).warning(0) == ""
    assert "85%" in watch(rate=0.85).warning(0)
    assert watch(RobotMode.IDLE, rate=0.0).warning(0) == ""


def test_what_software_cannot_undo_is_said_and_a_reflex_can_be() -> None:
    hopeless = {mode for mode in RobotMode if watch(mode).beyond_recovery(0)}
    assert hopeless == {RobotMode.USER_STOPPED, RobotMode.OTHER, RobotMode.GUIDING}
    assert FciWatch(FciConfig()).beyond_recovery(0) == ""


def test_an_old_state_keeps_nobody_from_trying() -> None:
    pressed = watch(RobotMode.USER_STOPPED, state_timeout_ms=100.0)
    assert "user stop" in pressed.beyond_recovery(100 * MS)
    assert pressed.beyond_recovery(101 * MS) == "" and "USER_STOPPED" in pressed.trouble(101 * MS)


def test_cures_are_for_errors_that_exist() -> None:
    from pathlib import Path

    message = Path(__file__).resolve().parents[1] / "overlay/franka_msgs/msg/Errors.msg"
    assert set(ERROR_MEANS) <= {line.split()[1] for line in message.read_text().splitlines()}
    with pytest.raises(ConfigError, match="state_timeout_ms"):
        FciConfig(state_timeout_ms=1.0)
