"""What the drivers of other packages are started with, against what their launch files declare."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from e0_policy.embodiment import load_embodiment
from e0_ros.config import ConfigError
from e0_ros.drivers import CONTROLLERS, Foreign
from e0_ros.graph import FrankaArguments, Graph, TeleopArguments, franka_graph
from e0_ros.resolve import resolve

CONFIG = Path(__file__).resolve().parents[1] / "config"
BRINGUP = {"robot_type", "arm_prefix", "namespace", "robot_ip", "load_gripper", "use_fake_hardware",
           "fake_sensor_commands", "joint_state_rate", "controllers_yaml"}  # fmt: skip
"""franka_bringup/launch/franka.launch.py of v2.2.0 to v2.5.0 and v3.2.0 to v3.4.0; before, `arm_id` for robot_type."""
REALSENSE = {"camera_name", "camera_namespace", "serial_no", "rgb_camera.color_profile", "enable_depth", "publish_tf",
             "depth_module.depth_profile", "depth_module.inter_cam_sync_mode", "config_file"}  # fmt: skip
"""Of realsense2_camera/launch/rs_launch.py, 4.58.2."""


def franka(**more: object) -> Graph:
    given = {"checkpoint": "c", "robot_ip": "172.16.0.2", "serials": ("831612073525", "831612073526"), **more}
    return franka_graph(FrankaArguments(**given))  # type: ignore[arg-type]


def words(foreign: Foreign) -> dict[str, str]:
    return dict(word.split(":=", 1) for word in foreign.arguments)


def by_name(graph: Graph) -> dict[str, Foreign]:
    return {item.name: item for item in graph.foreign}


def test_the_arms_driver_gets_what_every_version_of_its_launch_file_needs() -> None:
    given = words(by_name(franka())["franka"])
    assert given.keys() <= BRINGUP | {"arm_id"}
    assert given["robot_type"] == given["arm_id"] == "fr3" and given["robot_ip"] == "172.16.0.2"
    assert Path(given["controllers_yaml"]) == CONFIG / "controllers.yaml"
    fake = words(by_name(franka(robot_ip="", use_fake_hardware=True))["franka"])
    assert fake["use_fake_hardware"] == "true"
    assert Path(fake["controllers_yaml"]) == CONFIG / "controllers_fake.yaml"
    assert words(by_name(franka(controllers_yaml="/my.yaml"))["franka"])["controllers_yaml"] == "/my.yaml"


def test_no_graph_is_started_beside_another_ones_drivers() -> None:
    assert {"controller_manager", "base", "wrist", "chunk_executor", "gello_teleop"} <= franka().rivals
    assert not {"base", "wrist", "estop"} & franka(cameras=False).rivals, "cameras that run elsewhere are to be there"
    simulated = resolve("sim", {"simulator": "fr3_plant"}).rivals
    assert {"controller_manager", "policy"} <= simulated, "a real arm's controller hears a simulation's executor"


def test_a_policy_that_runs_elsewhere_may_be_there_first() -> None:
    assert "policy" in franka().rivals and "policy" not in franka(policy=False).rivals
    external = resolve("sim", {"simulator": "fr3_plant", "source": "external"}).rivals
    assert not {"policy", "experts", "gello_teleop"} & external and "chunk_executor" in external


def test_the_controller_waits_for_the_session_that_sets_payload_and_thresholds() -> None:
    for output, name in CONTROLLERS.items():
        spawner = by_name(franka(controller=output))["controller"].arguments
        assert spawner[0] == name and "--inactive" in spawner
    assert "--inactive" not in by_name(franka(arm_session=False))["controller"].arguments
    assert "--inactive" not in by_name(franka(use_fake_hardware=True))["controller"].arguments


def test_cameras_get_names_serials_and_profiles() -> None:
    for view, serial in (("base", "_831612073525"), ("wrist", "_831612073526")):
        given = words(by_name(franka())[f"camera_{view}"])
        assert given.keys() <= REALSENSE
        assert given["camera_namespace"] == "cameras" and given["camera_name"] == view
        assert given["serial_no"] == serial, "digits alone would become a number, which the driver refuses"
        assert given["rgb_camera.color_profile"] == "640x480x30" and given["enable_depth"] == "false"
    each = [words(by_name(franka(profiles=("848x480x60", "640x480x60")))[f"camera_{v}"]) for v in ("base", "wrist")]
    assert [given["rgb_camera.color_profile"] for given in each] == ["848x480x60", "640x480x60"]
    given = words(by_name(franka(camera_config="/lab/exposure.yaml"))["camera_base"])
    assert given["config_file"] == "/lab/exposure.yaml" and given.keys() <= REALSENSE


def test_wired_cameras_are_a_master_and_its_followers() -> None:
    each = [words(by_name(franka(hardware_sync=True))[f"camera_{view}"]) for view in ("base", "wrist")]
    assert [given["depth_module.inter_cam_sync_mode"] for given in each] == ["1", "2"]
    assert all(given["enable_depth"] == "true" and given.keys() <= REALSENSE for given in each)
    assert all(given["depth_module.depth_profile"] == "640x480x30" for given in each)


def test_the_observation_expects_the_rate_of_the_profile() -> None:
    def sync(**more: object) -> dict[str, object]:
        return dict(franka(**more).processes[0].settings)

    assert sync()["camera_rate_hz"] == 30.0 and "gripper_rate_hz" not in sync()
    assert sync(profiles=("848x480x60",))["camera_rate_hz"] == 60.0
    assert sync(use_fake_hardware=True)["gripper_rate_hz"] == 10.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"profiles": ("640x480",)}, "640x480x30"),
        ({"profiles": ("640x480x30", "640x480x60")}, "at one rate"),
        ({"profiles": ()}, "one for all views"),
        ({"profiles": ("640x480x30",) * 3}, "one per view"),
        ({"serials": ("1", "2", "3"), "cameras": False}, "3 serial numbers for 2 views"),
    ],
)
def test_wrong_cameras_are_refused_before_anything_starts(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        franka(**wrong)
    with pytest.raises(ConfigError, match=said):
        TeleopArguments(robot_ip="1", gello="g", **{"serials": ("1", "2"), **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["controllers.yaml", "controllers_fake.yaml"])
def test_controllers_are_those_of_the_graph_for_the_joints_of_the_arm(name: str) -> None:
    nodes = yaml.safe_load((CONFIG / name).read_text())["/**"]
    manager = nodes["controller_manager"]["ros__parameters"]
    trajectory = nodes["joint_trajectory_controller"]["ros__parameters"]
    joints = list(load_embodiment("fr3").joint_names)
    assert manager["update_rate"] == 1000 and trajectory["joints"] == joints
    assert manager["joint_trajectory_controller"]["type"] == "joint_trajectory_controller/JointTrajectoryController"
    assert trajectory["allow_trajectory_replacement"] is False
    if name == "controllers.yaml":
        assert set(CONTROLLERS.values()) <= manager.keys()
        assert trajectory["command_interfaces"] == ["effort"] and list(trajectory["gains"]) == joints
        assert manager["overruns"]["manage"] is False
    else:
        assert trajectory["command_interfaces"] == ["position", "velocity"], "an effort moves no mock"


@pytest.mark.ros
def test_a_node_of_a_controllers_name_gets_its_parameters_from_the_file() -> None:
    import rclpy
    from rclpy.context import Context

    context = Context()
    rclpy.init(args=["--ros-args", "--params-file", str(CONFIG / "controllers.yaml")], context=context)
    try:
        found = {}
        for name in ("controller_manager", "joint_trajectory_controller", "joint_impedance_controller"):
            node = rclpy.create_node(name, context=context, automatically_declare_parameters_from_overrides=True)
            found |= {f"{name}.{key}": parameter.value for key, parameter in node._parameters.items()}
            node.destroy_node()
    finally:
        context.try_shutdown()
    assert found["controller_manager.overruns.manage"] is False
    assert found["controller_manager.joint_impedance_controller.type"].endswith("/JointImpedanceController")
    assert found["joint_trajectory_controller.gains.fr3_joint7.p"] == 50.0
    assert found["joint_impedance_controller.arm_id"] == "fr3"
