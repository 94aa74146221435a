"""The order in which an arm comes back, with everything that is refused on the way."""

from itertools import permutations
from pathlib import Path

import pytest

from e0_ros.core.arm_session import Step, get_ready, recovery
from e0_ros.core.arm_setup import Payload
from e0_ros.core.fci import RobotMode
from sim.fci import RELEASED, USER_STOP, Fci
from sim.judge import REFLEXES

DRIVER = (Step.DEACTIVATE, Step.CLEAR, Step.HARDWARE, Step.SETTINGS, Step.ACTIVATE)
THRESHOLDS = {"upper_force_thresholds_nominal": (30.0,) * 6}
CAMERA = Payload(0.2, (0.0, 0.05, 0.03))


def moving(humble: bool) -> Fci:
    fci = Fci(humble)
    assert fci.stands == "robot mode IDLE" and fci.switch(activate=True, deactivate=False) == ""
    return fci


def do(fci: Fci, step: Step) -> str:
    return {
        Step.DEACTIVATE: lambda: fci.switch(activate=False, deactivate=True),
        Step.CLEAR: fci.recover,
        Step.HARDWARE: fci.activate_hardware,
        Step.SETTINGS: lambda: fci.set_load(CAMERA) or fci.set_thresholds(THRESHOLDS),
        Step.ACTIVATE: lambda: fci.switch(activate=True, deactivate=False),
    }[step]()


@pytest.mark.parametrize("humble", [True, False])
def test_the_steps_of_a_recovery_bring_it_back(humble: bool) -> None:
    fci = moving(humble)
    fci.fail("joint_reflex")
    fci.fail("cartesian_reflex")
    assert fci.stands == "robot mode REFLEX: joint_reflex, cartesian_reflex"
    steps = [step for step in recovery(humble, rearm=True) if step in DRIVER]
    assert [do(fci, step) for step in steps] == [""] * len(steps)
    assert fci.stands == "" and fci.errors == () and fci.last_motion_errors == ("joint_reflex", "cartesian_reflex")


@pytest.mark.parametrize("humble", [True, False])
def test_no_other_order_does(humble: bool) -> None:
    right = tuple(step for step in recovery(humble, rearm=True, settings=False) if step in DRIVER)
    for order in permutations(right):
        fci = moving(humble)
        fci.fail("joint_reflex")
        answers = [do(fci, step) for step in order]
        assert (not any(answers) and fci.stands == "") is (order == right), order


def test_on_humble_the_controller_must_be_deactivated_first() -> None:
    fci = moving(humble=True)
    fci.fail("joint_reflex")
    assert fci.recover() == "a controller is still active"


def test_a_pressed_user_stop_cannot_be_recovered_until_it_is_released() -> None:
    fci = moving(humble=False)
    fci.fail(USER_STOP)
    fci.fail("joint_reflex")
    assert fci.stands.startswith("robot mode USER_STOPPED") and fci.recover() and fci.activate_hardware()
    fci.fail(RELEASED)
    assert fci.mode is RobotMode.IDLE and fci.stands
    assert [do(fci, step) for step in DRIVER[1:]] == [""] * 4 and fci.stands == ""


@pytest.mark.parametrize("error", ["joint_reflex", USER_STOP])
def test_where_states_end_with_an_error_they_come_again_with_the_controllers(error: str) -> None:
    fci = moving(humble=False)
    fci.states_end = True
    fci.fail(error)
    fci.fail(RELEASED)
    told = [(do(fci, step), fci.telling) for step in DRIVER[1:]]
    assert told == [("", False)] * 3 + [("", True)]


@pytest.mark.parametrize("humble", [True, False])
def test_settings_are_taken_before_a_controller_runs_and_refused_after(humble: bool) -> None:
    fci = Fci(humble)
    steps = [step for step in get_ready() if step not in (Step.DISARM, Step.FIT)]  # which are not the driver's
    assert [do(fci, step) for step in steps] == [""] * 4
    assert fci.stands == "" and fci.payload == CAMERA and len(fci.thresholds) == 1
    assert "not possible in the current mode" in do(fci, Step.SETTINGS)
    assert [do(fci, step) for step in steps] == [""] * 4, "it is made ready again from an active controller"
    fci.fail("joint_reflex")
    assert "not possible in the current mode" in do(fci, Step.SETTINGS)


def test_what_the_judge_calls_a_reflex_is_one_of_frankas_errors() -> None:
    message = Path(__file__).resolve().parents[1] / "overlay/franka_msgs/msg/Errors.msg"
    assert {line.split()[1] for line in message.read_text().splitlines()} >= REFLEXES
