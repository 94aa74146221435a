"""The package as pip and colcon see it: identification, files in place, console scripts that run."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest

from e0_ros import environment
from e0_ros.bootstrap import machine
from e0_ros.graph import NODES

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("e0_ros", "e0_policy", "e0_msgs", "sim", "launch", "config", "resource", "setup.py", "setup.cfg",
         "pyproject.toml", "package.xml", "README.md", "LICENSE")  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A colcon workspace with a copy of the project in src/e0_ros."""
    top = tmp_path_factory.mktemp("workspace")
    (top / "src/e0_ros").mkdir(parents=True)
    for name in PARTS:
        source, target = ROOT / name, top / "src/e0_ros" / name
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, target, ignore=ignore) if source.is_dir() else shutil.copy(source, target)
    return top


def run(*command, cwd, **environ):
    bare = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env={**bare, **environ}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


BOTH = ("src/e0_ros", "src/e0_ros/e0_msgs")


def colcon(verb, *base_paths, cwd, options=(), **environ):
    pytest.importorskip("colcon_core", reason="colcon is not installed (extra dev)")
    words = (verb, "--base-paths", *base_paths, *options)
    return run(sys.executable, "-m", "colcon", "--log-base", "log", *words, cwd=cwd, **environ)


def console_scripts():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options.entry_points"]["console_scripts"].strip().splitlines()
    return dict((part.strip() for part in line.split("=")) for line in lines)


def test_colcon_identifies_both_packages(workspace):
    listed = {tuple(line.split()) for line in colcon("list", *BOTH, cwd=workspace).splitlines()}
    assert listed == {
        ("e0_ros", "src/e0_ros", "(ros.ament_python)"),
        ("e0_msgs", "src/e0_ros/e0_msgs", "(ros.ament_cmake)"),
    }


def test_package_xml_names_what_runs_with_it():
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    assert root.get("format") == "3"
    depends = {e.text for e in root.iter("exec_depend")}
    assert depends >= {
        *("rclpy", "message_filters", "cv_bridge", "launch", "launch_ros", "e0_msgs", "franka_bringup", "franka_msgs"),
        *("realsense2_camera", "control_msgs", "sensor_msgs", "trajectory_msgs", "python3-numpy", "python3-opencv"),
    }
    used = set()
    for folder in ("e0_ros", "sim"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= set(re.findall(r"^\s*(?:from|import) (\w+(?:_msgs|_srvs|_interfaces))\b", path.read_text(), re.M))
    assert used <= depends, f"package.xml lacks {used - depends}"


def test_versions_agree():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    versions = {p: ElementTree.parse(ROOT / p).findtext("version") for p in ("package.xml", "e0_msgs/package.xml")}
    assert set(versions.values()) == {config["metadata"]["version"]}
    assert f"## {config['metadata']['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_node_has_a_console_script_of_its_name():
    scripts = console_scripts()
    missing = [n.name for n in NODES if scripts.get(n.name) != f"{n.module}:main"]
    assert missing == []


def test_a_wheel_serves_pip_and_launch_ros_alike(workspace, tmp_path):
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), ".",
        cwd=workspace / "src/e0_ros")  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [n for n in names if n.startswith(("tests", "e0_msgs"))]
    prefix = tmp_path / "prefix"
    run(sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(prefix), cwd=tmp_path)
    run(sys.executable, "-m", "pip", "--python", str(prefix / "bin/python"), "install", "--quiet", "--no-deps",
        "--ignore-installed", str(wheel), cwd=tmp_path)  # fmt: skip
    share = prefix / "share"
    assert (share / "ament_index/resource_index/packages/e0_ros").is_file()
    assert (share / "e0_ros/package.xml").is_file()
    assert (share / "e0_ros/launch/sim.launch.py").is_file()
    assert (share / "e0_ros/config/embodiment/fr3.yaml").is_file()
    for name in console_scripts():
        assert os.access(prefix / "bin" / name, os.X_OK)
        assert os.access(prefix / "lib/e0_ros" / name, os.X_OK)
    site = str(next(prefix.glob("lib/python3*/site-packages")))
    shown = run(str(prefix / "lib/e0_ros/e0"), "--help", cwd="/", PYTHONPATH=os.pathsep.join([site, *paths()]))
    assert shown.startswith("usage: e0 VERB")
    code = "from e0_policy.resources import config_dir; print(config_dir())"
    where = run(str(prefix / "bin/python"), "-c", code, cwd="/", PYTHONPATH=os.pathsep.join([site, *paths()]))
    assert where.strip() == str(share / "e0_ros/config")


def paths():
    """Site-packages of this interpreter, for an environment that was made without any."""
    return [p for p in sys.path if p.endswith("site-packages")]


def wheel_options():
    """What e0_msgs' build needs where ROS 2 comes from wheels; see fix_includes.cmake. (cmake arguments, variables)"""
    if environment.detect().kind == environment.INSTALL:
        return [], {}
    numpy_include = machine.numpy_include(Path(sys.executable))
    python_include = sysconfig.get_paths()["include"]
    rewrite = ROOT / "e0_ros/bootstrap/fix_includes.cmake"
    options = [f"-DCMAKE_PROJECT_INCLUDE={rewrite}", f"-DE0_PYTHON_INCLUDE={python_include}"]
    options += [f"-DE0_NUMPY_INCLUDE={numpy_include}", f"-DPython3_EXECUTABLE={sys.executable}", "-GNinja"]
    path = os.pathsep.join([f"{sys.prefix}/bin", os.environ["PATH"]])
    return ["--cmake-args", *options], {"PATH": path, "CMAKE_PREFIX_PATH": sys.prefix, "AMENT_PREFIX_PATH": sys.prefix}


@pytest.mark.slow
def test_colcon_builds_the_messages(workspace):
    options, variables = wheel_options()
    colcon("build", "src/e0_ros/e0_msgs", cwd=workspace, options=options, **variables)
    assert (workspace / "install/e0_msgs/share/e0_msgs/msg/Observation.msg").is_file()
    assert list((workspace / "install/e0_msgs").glob("lib/python3*/site-packages/e0_msgs/msg/_observation.py"))


def test_colcon_installs_the_package_where_ros_looks(workspace):
    colcon("build", "src/e0_ros", cwd=workspace)
    prefix = workspace / "install/e0_ros"
    assert (prefix / "share/ament_index/resource_index/packages/e0_ros").is_file()
    assert (prefix / "share/e0_ros/launch/franka.launch.py").is_file()
    assert {p.name for p in (prefix / "lib/e0_ros").iterdir()} >= set(console_scripts())
    site = next(prefix.glob("lib/python3*/site-packages"))
    assert (site / "e0_ros/graph.py").is_file()
    path = os.pathsep.join([str(site), *paths()])
    assert run(str(prefix / "lib/e0_ros/e0"), "--help", cwd="/", PYTHONPATH=path).startswith("usage: e0 VERB")
