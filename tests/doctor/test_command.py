"""The verb: choice of checks, exit status, text and JSON."""

from __future__ import annotations

import json
import time

import pytest
from doctor.fake_machine import Fake

from e0_ros.cli import main as e0
from e0_ros.config import ConfigError
from e0_ros.doctor.checks import CHECKS, chosen
from e0_ros.doctor.command import main
from e0_ros.doctor.machine import Machine, run_program

SLOW = {check.name for check in CHECKS if check.slow}


def names(*words, measure=False):
    return {check.name for check in chosen(words, measure)}


def test_slow_checks_run_when_measuring_or_named_themselves():
    assert not names() & SLOW
    assert names(measure=True) >= SLOW
    assert names("arm") & SLOW == set()
    assert names("robot_link") == {"robot_link"}
    assert names("usb", "kernel") == {"camera_speed", "camera_bandwidth", "latency_timer", "kernel"}


def test_an_unknown_check_names_the_closest(capsys):
    with pytest.raises(ConfigError, match="did you mean 'kernel'"):
        chosen(["kernal"], False)
    assert e0(["doctor", "--only", "kernal"]) == 2
    assert "did you mean 'kernel'" in capsys.readouterr().err


def test_red_is_exit_status_1_with_the_cure_below_and_in_the_json(tmp_path, capsys):
    fake = Fake(tmp_path).file("/proc/version", "Linux version 6.8.0-31-generic SMP PREEMPT_DYNAMIC")
    file = tmp_path / "doctor.json"
    asked = ["--only", "kernel", "governor", "--json", str(file)]
    assert main([*asked, "--robot-ip", "172.16.0.2"], fake.machine()) == 1
    said = capsys.readouterr().out
    assert "FAIL kernel" in said
    assert said.index("FAIL kernel") < said.index("-> install a real-time kernel")
    assert "1 red, 1 grey" in said
    found = json.loads(file.read_text())
    assert (found["red"], found["checks"]["kernel"]["level"], found["checks"]["governor"]["level"]) == (
        1,
        "red",
        "grey",
    )
    assert "realtime-kernel" in found["checks"]["kernel"]["cure"]
    assert main(asked, fake.machine()) == 0


def test_the_list_names_every_check(capsys):
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert all(check.name in said and check.asks in said for check in CHECKS)


def test_lines_fit_the_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main([], Fake(tmp_path).machine())
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("wrong", [["--camera-profile", "big"], ["--measure-s", "0"], ["--robot-ip=-f"]])
def test_wrong_arguments_are_refused(wrong, capsys):
    assert e0(["doctor", *wrong]) == 2
    assert capsys.readouterr().err.startswith("e0 doctor: ")


def test_this_machine_is_read_for_real():
    machine = Machine()
    assert machine.text("/proc/version").startswith("Linux")
    assert machine.text("/no/such/file") is None
    assert machine.free(machine.path("/")) > 0
    assert machine.run("sh", "-c", "echo a; exit 3").status == 3
    assert machine.run("no-such-program") is None
    begun = time.monotonic()
    assert run_program(["sleep", "60"], 0.1) is None
    assert time.monotonic() - begun < 60


def test_a_whole_examination_of_this_machine_ends_with_a_verdict(capsys):
    assert main(["--only", "host", "ros", "disk"]) in (0, 1)
    assert "disk" in capsys.readouterr().out
