"""The import rules of ARCHITECTURE.md ("Layers"), read from the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROS = {
    *("e0_msgs", "std_msgs", "sensor_msgs", "geometry_msgs", "trajectory_msgs", "diagnostic_msgs", "rosgraph_msgs"),
    "tf2_msgs",
    "rclpy",
    "std_srvs",
    "builtin_interfaces",
    "rcl_interfaces",
    "launch",
    "launch_ros",
    "rosidl_runtime_py",
}
TORCH = {"torch", "transformers", "safetensors"}
SIMULATORS = {"sapien", "mani_skill", "mplib", "gymnasium", "robosuite", "libero"}
BASE = {"numpy", "yaml"}
CORE = BASE | {"cv2", "mcap", "mcap_ros2", "rosbags", "ruckig", "lz4", "zstandard", "pinocchio", "pyarrow", "av"}
CLOCKS = {("time", n) for n in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")} | {
    ("datetime", "now"),
    ("datetime", "utcnow"),
}
NUMPY_PART = ("types", "embodiment", "arm_description", "policy", "resources", "files")
LOADS_CHECKPOINTS = "e0_ros/policies.py"
IN_SIM_WITH_ROS = ("sim/bridge", "sim/experts.py", "sim/evaluator.py", "sim/demo.py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports, wherever in it; `from a import b` gives a.b too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, *parents: str) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def top(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def torch_part() -> set[str]:
    """Modules of e0_policy that import torch, at once or through one another."""
    sources = {f"e0_policy.{p.stem}": set(imports(ast.parse(p.read_text()))) for p in (ROOT / "e0_policy").glob("*.py")}
    found = {name for name, used in sources.items() if any(top(u) in TORCH for u in used)}
    while more := {n for n, used in sources.items() if n not in found and used & found}:
        found |= more
    return found


def violations(path: str, source: str, torch_modules: set[str]) -> list[str]:
    """What a file imports or calls against its layer's rules; `path` is relative to the root."""
    tree = ast.parse(source)
    used = sorted(set(imports(tree)))
    foreign = [
        u for u in used if top(u) not in sys.stdlib_module_names and top(u) not in ("e0_policy", "e0_ros", "sim")
    ]
    bad: list[str] = []
    if path.startswith("e0_policy/"):
        bad = [u for u in used if top(u) in ROS | SIMULATORS | {"e0_ros", "sim"}]
        if Path(path).stem in NUMPY_PART:
            bad += [u for u in foreign if top(u) not in BASE] + [u for u in used if u in torch_modules]
    elif path.startswith("e0_ros/core/"):
        allowed = ("e0_ros.core", "e0_ros.config", "e0_ros.interfaces", "e0_policy")
        bad = [u for u in foreign if top(u) not in CORE] + [u for u in used if u in torch_modules]
        bad += [u for u in used if top(u) in ("e0_ros", "sim") and u != "e0_ros" and not under(u, *allowed)]
        bad += clocks_read(tree)
    elif path.startswith(("e0_ros/bootstrap/", "e0_ros/environment.py")):
        bad = foreign + [u for u in used if under(u, "sim", "e0_policy")]
    elif path.startswith("e0_ros/bench/"):
        bad = [u for u in used if top(u) in TORCH | SIMULATORS]
    elif path.startswith("e0_ros/"):
        bad = [u for u in used if top(u) in TORCH | SIMULATORS | {"sim"}]
        if path != LOADS_CHECKPOINTS:
            bad += [u for u in used if u in torch_modules]
        if path.startswith("e0_ros/nodes/"):
            bad += [u for u in used if under(u, "e0_ros.nodes")]
        elif not path.endswith("ros_launch.py"):
            bad += [u for u in used if top(u) in ("launch", "launch_ros")]
    elif path.startswith("sim/"):
        bad = [u for u in used if under(u, "e0_ros.nodes") or u in torch_modules]
        if not path.startswith(IN_SIM_WITH_ROS):
            bad += [u for u in used if top(u) in ROS]
        if path.startswith("sim/bridge"):
            bad += [u for u in used if top(u) in SIMULATORS]
    elif path.startswith("launch/"):
        bad = [u for u in used if top(u) not in ("launch", "launch_ros") and not under(u, "e0_ros.ros_launch")]
    return [f"{path}: {b}" for b in dict.fromkeys(bad)]


def clocks_read(tree: ast.AST) -> list[str]:
    """Calls of a wall or steady clock, as `time.monotonic`."""
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    names = [(f.value.id, f.attr) for f in calls if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name)]
    return [".".join(name) for name in names if name in CLOCKS]


def sources() -> list[Path]:
    folders = ("e0_policy", "e0_ros", "sim", "launch")
    return [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py")) if "__pycache__" not in p.parts]


def test_every_file_keeps_its_layers_rules():
    torch_modules = torch_part()
    found = [v for p in sources() for v in violations(p.relative_to(ROOT).as_posix(), p.read_text(), torch_modules)]
    assert not found, "\n".join(found)


def test_each_simulator_is_imported_in_one_family_of_files():
    """mani_skill only in files that say so, or that prepare it."""
    allowed = ("sim/maniskill", "sim/robot_visuals", "sim/libero", "sim/vulkan", "e0_ros/bootstrap")
    users = [
        p.relative_to(ROOT).as_posix()
        for p in sources()
        if any(top(u) in SIMULATORS for u in imports(ast.parse(p.read_text())))
    ]
    assert [u for u in users if not u.startswith(allowed)] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("e0_policy/types.py", "import torch"),
        ("e0_policy/types.py", "from e0_policy import model"),
        ("e0_policy/model.py", "from e0_ros import interfaces"),
        ("e0_policy/model.py", "def f():\n    import rclpy"),
        ("e0_ros/core/x.py", "from sensor_msgs.msg import Image"),
        ("e0_ros/core/x.py", "from e0_policy.model import E0"),
        ("e0_ros/core/x.py", "from e0_ros.nodes import policy"),
        ("e0_ros/core/x.py", "from e0_ros import conversions"),
        ("e0_ros/core/x.py", "import time\nnow = time.monotonic()"),
        ("e0_ros/nodes/x.py", "from e0_ros.nodes.policy import main"),
        ("e0_ros/nodes/x.py", "import torch"),
        ("e0_ros/nodes/x.py", "import sim.bridge"),
        ("e0_ros/graph.py", "from launch import LaunchDescription"),
        ("e0_ros/nodes/policy.py", "def f():\n    from e0_policy.model import E0"),
        ("e0_ros/policies.py", "import torch"),
        ("e0_ros/bootstrap/x.py", "import numpy"),
        ("sim/judge.py", "import rclpy"),
        ("sim/bridge/node.py", "import mani_skill"),
        ("sim/x.py", "from e0_ros.nodes import policy"),
        ("sim/x.py", "from e0_policy.model import E0"),
        ("launch/sim.launch.py", "from e0_ros.interfaces import CLOCK"),
    ],
)
def test_each_rule_can_be_broken(path, source):
    assert violations(path, source, {"e0_policy.model"})


def test_what_is_allowed_passes():
    assert not violations("e0_ros/core/x.py", "import numpy\nfrom e0_policy.types import Stale\nimport time", set())
    assert not violations("sim/bridge/node.py", "import rclpy\nfrom sim.adapter import Scene", set())
    assert not violations("e0_policy/model.py", "import torch", {"e0_policy.model"})
    assert not violations("e0_ros/policies.py", "from e0_policy.model import E0", {"e0_policy.model"})
    assert not violations("sim/x.py", "from e0_ros.policies import load_checkpoint", {"e0_policy.model"})
