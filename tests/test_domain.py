"""Tests keep to a ROS domain of their own, whatever the shell's."""

from __future__ import annotations

import os

import pytest

from tests.domain import keep_to_itself


@pytest.mark.parametrize("shell", ["", "0", "7", "100"])
def test_the_shells_domain_is_left(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("ROS_STATIC_PEERS", "10.0.0.1")
    for pid in range(200):
        monkeypatch.setenv("ROS_DOMAIN_ID", shell)
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        keep_to_itself()
        assert os.environ["ROS_DOMAIN_ID"] not in ("0", shell) and 1 <= int(os.environ["ROS_DOMAIN_ID"]) <= 100
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST" and "ROS_STATIC_PEERS" not in os.environ
