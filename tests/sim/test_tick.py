from __future__ import annotations

from itertools import permutations

import pytest

from sim.tick import TickGate


def test_state_and_trajectory_in_any_order() -> None:
    for order in permutations(("state", "trajectory")):
        gate = TickGate(impedance=False)
        commands = 7
        for stamp in range(100, 105):
            gate.open(stamp)
            commands += 1
            for kind in order:
                assert gate.missing()
                if kind == "state":
                    assert gate.state(stamp, commands, disarmed=False)
                else:
                    gate.trajectory()
            assert gate.missing() == "" and not gate.waiting


def test_a_disarmed_executor_sends_none() -> None:
    gate = TickGate(impedance=False)
    for stamp in (1, 2):
        gate.open(stamp)
        gate.state(stamp, 3, disarmed=True)
        assert gate.missing() == ""


def test_states_of_other_stamps_do_not_count() -> None:
    gate = TickGate(impedance=False)
    gate.open(5)
    assert not gate.state(4, 1, disarmed=True)
    assert gate.missing() == "the executor's state"


@pytest.mark.parametrize("restarted", [False, True])
def test_missing_trajectories_are_counted_from_the_last_tick(restarted: bool) -> None:
    gate = TickGate(impedance=False)
    gate.open(1)
    gate.trajectory()
    gate.state(1, 41, disarmed=False)
    assert gate.missing() == ""
    gate.trajectory()
    gate.open(2)
    gate.state(2, 1 if restarted else 43, disarmed=False)
    assert gate.missing() == ("1 of 1 trajectories" if restarted else "1 of 2 trajectories")
    gate.trajectory()
    assert gate.missing() == ""


def test_impedance_waits_for_the_target_of_the_stamp() -> None:
    gate = TickGate(impedance=True)
    gate.open(5)
    gate.target(4)
    gate.state(5, 0, disarmed=True)
    assert gate.missing() == "the impedance target"
    gate.target(5)
    assert gate.missing() == ""


def test_close_forgets() -> None:
    gate = TickGate(impedance=False)
    gate.open(1)
    gate.close()
    assert not gate.waiting and not gate.state(1, 1, disarmed=False)
