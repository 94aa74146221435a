"""Tests keep to a ROS domain of their own, whatever the shell's, and leave nothing behind that speaks in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from e0_ros.own_domain import own_domain
from tests.domain import descendants, end, speakers

SPEAKS = "import rclpy, sys, time; rclpy.init(); print('up', flush=True); time.sleep(600)"


@pytest.mark.parametrize("shell", ["", "0", "7", "100"])
def test_the_shells_domain_is_left(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("ROS_STATIC_PEERS", "10.0.0.1")
    for pid in range(100):
        monkeypatch.setenv("ROS_DOMAIN_ID", shell)
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        with own_domain() as domain:
            assert os.environ["ROS_DOMAIN_ID"] == str(domain) not in ("0", shell) and 1 <= domain <= 100
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST" and "ROS_STATIC_PEERS" not in os.environ


def test_two_runs_of_the_same_pid_get_different_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", os.environ["ROS_DOMAIN_ID"])
    with own_domain() as one, own_domain() as other:
        assert one != other


@pytest.mark.ros
def test_what_speaks_ros_is_found_among_descendants_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", os.environ["ROS_DOMAIN_ID"])
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPEAKS!r}])"
    with (
        own_domain() as domain,
        subprocess.Popen([sys.executable, "-c", nested], stdout=subprocess.PIPE, text=True) as outer,
    ):
        assert outer.stdout is not None and outer.stdout.readline() == "up\n"
        (found,) = speakers(descendants())
        assert found != outer.pid
        with own_domain() as free:
            assert free != domain
        end([found])
        assert outer.wait(30.0) == 0 and speakers(descendants()) == {}
