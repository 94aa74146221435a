"""Processes of other packages that a bench needs, as data: the arm's driver, its controller, cameras, camera places.

Arguments are those of franka_bringup's franka.launch.py (franka_ros2 v2.1.0 to v2.5.0 and v3.0.0 to v3.4.0) and of
realsense2_camera's rs_launch.py (realsense-ros 4.55 to 4.58.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e0_policy.embodiment import load_embodiment
from e0_policy.resources import config_dir
from e0_ros.config import ConfigError
from e0_ros.core.bench_calibration import BenchCalibration, read_bench
from e0_ros.core.camera_model import FLANGE, quaternion_xyzw
from e0_ros.interfaces import optical_frame, trained_frame

if TYPE_CHECKING:
    from e0_ros.graph import BenchArguments

SHUTDOWN, RESTART, CONTINUE = "shutdown", "restart", "continue"
CONTROLLERS = {"joint_trajectory": "joint_trajectory_controller", "impedance": "joint_impedance_controller"}
"""Name of the arm's controller by the executor's output, here and in `config/controllers.yaml`."""
ARM_NODES = ("controller_manager",)
"""Nodes of the arm's driver, whose controllers play what any graph's executor publishes."""
_MASTER, _SLAVE = 1, 2


@dataclass(frozen=True)
class Foreign:
    """A launch file (`verb` launch) or an executable (`verb` run) of another ROS package, with its arguments.

    Two at once are told by `nodes`, names that only it gives.
    """

    name: str
    verb: str
    package: str
    target: str
    arguments: tuple[str, ...] = ()
    on_death: str = SHUTDOWN
    nodes: tuple[str, ...] = ()


def measured(a: BenchArguments) -> BenchCalibration | None:
    """The bench's calibration, if there is one."""
    return read_bench(Path(a.calibration)) if a.calibration else None


def controllers_file(a: BenchArguments) -> Path:
    """The YAML file that the controller manager gets."""
    shipped = "controllers_fake.yaml" if a.use_fake_hardware else "controllers.yaml"
    return Path(a.controllers_yaml).resolve() if a.controllers_yaml else config_dir() / shipped


def drivers(a: BenchArguments, activated_by_us: bool) -> tuple[Foreign, ...]:
    """All of them. `activated_by_us`: the arm's controller is left inactive, for `arm_session` activates it."""
    places = _places(a)
    views = a.views if a.cameras and not a.fake_cameras else ()
    cameras = [_camera(a, i, view in places) for i, view in enumerate(views)]
    told = [by_view[view] for by_view in (places, _trained_places(a)) for view in a.views if view in by_view]
    return (*_arm(a, activated_by_us), *cameras, *told)


def _arm(a: BenchArguments, activated_by_us: bool) -> tuple[Foreign, Foreign]:
    kind = load_embodiment(a.embodiment).joint_names[0].removesuffix("_joint1")
    words = (
        f"robot_ip:={a.robot_ip or 'dont-care'}",
        f"robot_type:={kind}",
        f"arm_id:={kind}",  # what robot_type was called before v2.2.0 and v3.2.0; each ignores the other's
        f"use_fake_hardware:={str(a.use_fake_hardware).lower()}",
        "load_gripper:=true",
        f"controllers_yaml:={controllers_file(a)}",
    )
    inactive = ("--inactive",) if activated_by_us else ()
    spawner = (CONTROLLERS[a.controller], *inactive, "--controller-manager-timeout", "60")
    return (
        Foreign("franka", "launch", "franka_bringup", "franka.launch.py", words, nodes=ARM_NODES),
        Foreign("controller", "run", "controller_manager", "spawner", spawner, CONTINUE),
    )


def _camera(a: BenchArguments, i: int, placed: bool) -> Foreign:
    """One RealSense: its namespace and name make the topics of `e0_ros.interfaces.camera_topic`."""
    view, profile = a.views[i], a.profiles[i] if len(a.profiles) > 1 else a.profiles[0]
    words = [f"camera_name:={view}", "camera_namespace:=cameras", f"rgb_camera.color_profile:={profile}"]
    if a.serials:
        words.append(f"serial_no:=_{a.serials[i]}")  # the driver takes `_` off; digits alone would be a number
    if a.camera_config:
        words.append(f"config_file:={Path(a.camera_config).resolve()}")
    if a.hardware_sync:
        words += [f"depth_module.depth_profile:={profile}",
                  f"depth_module.inter_cam_sync_mode:={_SLAVE if i else _MASTER}"]  # fmt: skip
    words.append(f"enable_depth:={str(a.hardware_sync).lower()}")
    if placed:
        words.append("publish_tf:=false")  # a frame has one parent
    return Foreign(f"camera_{view}", "launch", "realsense2_camera", "rs_launch.py", tuple(words), nodes=(view,))


def _places(a: BenchArguments) -> dict[str, Foreign]:
    """Per calibrated view who tells /tf_static of its place."""
    return _tellers(a, measured(a) or BenchCalibration(), "place", optical_frame)


def _trained_places(a: BenchArguments) -> dict[str, Foreign]:
    """Per view who tells of the place that it had when the policy's demonstrations were recorded.

    Raises:
        ConfigError: it is not to be compared with the view's place now, so that no offset would follow.

    """
    if not a.trained_calibration:
        return {}
    now, then = measured(a) or BenchCalibration(), read_bench(Path(a.trained_calibration))
    hangs = {view: place.parent for view, place in now.cameras.items()}
    lost = [view for view, place in then.cameras.items() if hangs.get(view) != place.parent] or not then.cameras
    if lost:
        had = ", ".join(f"{view} on the {place.parent}" for view, place in then.cameras.items()) or "no camera"
        raise ConfigError(f"trained_calibration has {had}; calibration:=FILE must have the same, where they are now")
    return _tellers(a, then, "trained_place", trained_frame)


def _tellers(a: BenchArguments, bench: BenchCalibration, name: str, frame: Callable[[str], str]) -> dict[str, Foreign]:
    base = load_embodiment(a.embodiment).base_frame
    frames, told = {"base": base, "flange": base.removesuffix("link0") + FLANGE}, {}
    for view, place in bench.cameras.items():
        numbers = [*place.pose[:3, 3].tolist(), *quaternion_xyzw(place.pose[:3, :3]).tolist()]
        words = [f for axis, x in zip(("x", "y", "z", "qx", "qy", "qz", "qw"), numbers, strict=True)
                 for f in (f"--{axis}", f"{x:.9f}")]  # fmt: skip
        words += ["--frame-id", frames[place.parent], "--child-frame-id", frame(view)]
        told[view] = Foreign(f"{name}_{view}", "run", "tf2_ros", "static_transform_publisher", tuple(words), RESTART)
    return told
