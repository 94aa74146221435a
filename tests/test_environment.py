import os
import subprocess
import sys
from pathlib import Path

import pytest

from e0_ros import environment
from e0_ros.environment import GUARD, INSTALL, MIXED, NONE, WHEELS, RosError, child_environment, detect, require


def prefix(folder, *, rclpy=False, wheels=False):
    """A made-up prefix, as an install or as an environment with wheels has it."""
    folder.mkdir(parents=True)
    if rclpy:
        marker = folder / "share/ament_index/resource_index/packages/rclpy"
        marker.parent.mkdir(parents=True)
        marker.touch()
    if wheels:
        site = folder / "lib/python3.11/site-packages"
        site.mkdir(parents=True)
        (site / "ros_wheels_bootstrapper.py").touch()
    return str(folder)


@pytest.fixture
def places(tmp_path):
    install = prefix(tmp_path / "opt/ros/jazzy", rclpy=True)
    wheels = prefix(tmp_path / "venv", rclpy=True, wheels=True)
    return install, wheels, prefix(tmp_path / "bare")


def test_tells_wheels_install_none_and_a_mixture(places):
    install, wheels, bare = places
    sourced = {"AMENT_PREFIX_PATH": install, "ROS_DISTRO": "jazzy"}
    assert detect({}, wheels).kind == WHEELS
    assert detect({"AMENT_PREFIX_PATH": wheels}, wheels).kind == WHEELS
    assert detect(sourced, bare) == environment.Ros(INSTALL, install, "jazzy")
    assert detect({}, bare).kind == NONE
    assert detect(sourced, wheels).kind == MIXED


def test_a_mixture_and_nothing_are_refused_with_the_cure(places):
    install, wheels, bare = places
    with pytest.raises(RosError, match="sources none, or `make clean-setup setup`"):
        require({"AMENT_PREFIX_PATH": install}, wheels)
    with pytest.raises(RosError, match="source a ROS 2 install"):
        require({}, bare)
    assert require({}, wheels).kind == WHEELS


def test_another_interpreter_finds_its_own_libraries(places, monkeypatch):
    _, wheels, _ = places
    monkeypatch.setattr(sys, "prefix", "/ours")
    ours = {GUARD: "1", "LD_LIBRARY_PATH": "/ours/lib:/cuda/lib", "AMENT_PREFIX_PATH": "/ours:/overlay"}
    child = child_environment(ours, f"{wheels}/bin/python")
    assert GUARD not in child
    assert child["LD_LIBRARY_PATH"] == "/cuda/lib"
    assert child["AMENT_PREFIX_PATH"] == f"{wheels}:/overlay"
    same = child_environment(ours, "/ours/bin/python")
    assert (same[GUARD], same["LD_LIBRARY_PATH"]) == ("1", ours["LD_LIBRARY_PATH"])
    assert ours[GUARD] == "1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, True),
        ({"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"}, True),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, False),
    ],
)
def test_shared_memory_profile_only_under_fast_dds(tmp_path, given, expected):
    profiles = tmp_path / "fastdds.xml"
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in child_environment(given, profiles=profiles)
    profiles.touch()
    assert ("FASTDDS_DEFAULT_PROFILES_FILE" in child_environment(given, profiles=profiles)) == expected
    chosen = child_environment({"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"}, profiles=profiles)
    assert chosen["FASTDDS_DEFAULT_PROFILES_FILE"] == "/mine.xml"


def test_traffic_stays_on_this_host_unless_told_otherwise():
    assert child_environment({})["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert child_environment({})["OPENBLAS_NUM_THREADS"] == "1"
    assert child_environment({"OPENBLAS_NUM_THREADS": "4"})["OPENBLAS_NUM_THREADS"] == "4"
    chosen = child_environment({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"})
    assert chosen["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"


@pytest.mark.ros
def test_ros_works_in_a_bare_shell_of_this_interpreter():
    """As a user's first command, with nothing in the environment but what every shell has."""
    if detect().kind != WHEELS:
        pytest.skip("this is not an environment of wheels")
    bare = {
        "PATH": "/usr/bin:/bin",
        "HOME": os.environ.get("HOME", "/tmp"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    if not any(Path(sys.prefix).glob("lib/python3*/site-packages/e0_venv_start.pth")):
        pytest.skip("this environment was not made by `make setup`")
    code = (
        "import os, rclpy, sys; from e0_msgs.msg import Observation; rclpy.init(); n = rclpy.create_node('bare');"
        "n.create_publisher(Observation, 'bare', 1); assert os.environ['AMENT_PREFIX_PATH'] == sys.prefix; print('ok')"
    )
    for extra in ({}, {GUARD: "1"}, {GUARD: "1", "LD_LIBRARY_PATH": "/elsewhere/lib"}):
        done = subprocess.run([sys.executable, "-c", code], env={**bare, **extra}, capture_output=True, text=True)
        assert done.stdout.strip() == "ok", done.stderr
