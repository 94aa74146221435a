"""Every topic and service of the graph, once: name, type, QoS, rate, and what the stamp means.

`ARCHITECTURE.md` shows this table; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Qos:
    """Quality of service: keep-last `depth`, reliable or best effort, latched (transient local) or volatile.

    A depth is what a subscriber may fall behind before it loses messages, so small messages get a large one.
    """

    depth: int = 100
    reliable: bool = True
    latched: bool = False

    def profile(self) -> Any:
        """The `rclpy.qos.QoSProfile`."""
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        return QoSProfile(
            depth=self.depth,
            reliability=ReliabilityPolicy.RELIABLE if self.reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if self.latched else DurabilityPolicy.VOLATILE,
        )


@dataclass(frozen=True)
class Topic:
    """A topic. `rate` is in words; `privileged` topics may reach neither a policy nor a dataset's features.

    A `steady` topic never pauses in real time while its publisher lives.
    """

    name: str
    type: str
    qos: Qos
    rate: str
    stamp: str
    privileged: bool = False
    steady: bool = False


@dataclass(frozen=True)
class Service:
    """A service. `owner` is the node that serves it."""

    name: str
    type: str
    owner: str


def camera_topic(view: str) -> Topic:
    """Colour image of a view, under the name that realsense2_camera gives it (namespace `cameras`)."""
    return Topic(
        f"/cameras/{view}/color/image_raw",
        "sensor_msgs/msg/Image",
        Qos(depth=5),
        "camera (20 to 60 Hz)",
        "capture of the image",
        steady=True,
    )


def camera_info_topic(view: str) -> Topic:
    """Calibration of a view's camera, as realsense2_camera publishes it with every image."""
    return Topic(
        f"/cameras/{view}/color/camera_info",
        "sensor_msgs/msg/CameraInfo",
        Qos(depth=5),
        "with every image",
        "capture of the image",
    )


def optical_frame(view: str) -> str:
    """Frame of a view's images, x right, y down, z forward."""
    return f"{view}_color_optical_frame"


def trained_frame(view: str) -> str:
    """Frame where a view's `optical_frame` was when a policy's demonstrations were recorded, if somebody tells."""
    return f"{view}_trained_optical_frame"


def compressed_camera_topic(view: str) -> Topic:
    """The same view as image_transport compresses it."""
    name = camera_topic(view).name + "/compressed"
    return Topic(name, "sensor_msgs/msg/CompressedImage", Qos(depth=5), "camera", "capture of the image")


CLOCK = Topic("/clock", "rosgraph_msgs/msg/Clock", Qos(), "lock-step: per tick", "-")
JOINT_STATES = Topic(
    "/franka/joint_states",
    "sensor_msgs/msg/JointState",
    Qos(depth=1000),
    "1 kHz (ManiSkill 100 Hz)",
    "measurement",
    steady=True,
)
GRIPPER_STATES = Topic(
    "/franka_gripper/joint_states", "sensor_msgs/msg/JointState", Qos(), "15 Hz and up", "measurement", steady=True
)
TRAJECTORY = Topic(
    "/joint_trajectory_controller/joint_trajectory",
    "trajectory_msgs/msg/JointTrajectory",
    Qos(),
    "50 Hz (lock-step: per tick)",
    "time of the trajectory's start, before its receipt",
)
SIM_STEP = Topic(
    "/e0/sim/step",
    "e0_msgs/msg/ActionChunk",
    Qos(),
    "lock-step, output step: one row per tick, for a simulator alone",
    "control step",
)
IMPEDANCE_TARGET = Topic(
    "/gello/joint_states", "sensor_msgs/msg/JointState", Qos(depth=1), "tick rate, never pauses", "publishing"
)
GRIPPER_COMMAND = Topic("/e0/gripper_command", "e0_msgs/msg/GripperCommand", Qos(), "on change", "time to act")
OBSERVATION = Topic(
    "/e0/observation",
    "e0_msgs/msg/Observation",
    Qos(depth=5),
    "per reference image",
    "capture of the reference image",
    steady=True,
)
ACTION_CHUNK = Topic("/e0/action_chunk", "e0_msgs/msg/ActionChunk", Qos(), "per plan", "publishing")
SHADOW_CHUNK = Topic(
    "/e0/shadow_chunk", "e0_msgs/msg/ActionChunk", Qos(), "per plan of a policy that only watches", "publishing"
)
EXECUTOR_STATE = Topic("/e0/executor_state", "e0_msgs/msg/ExecutorState", Qos(), "per tick", "tick", steady=True)
EPISODE_EVENT = Topic(
    "/e0/episode_event", "e0_msgs/msg/EpisodeEvent", Qos(depth=10, latched=True), "on change", "event"
)
RECORDER_STATE = Topic(
    "/e0/recorder_state", "e0_msgs/msg/RecorderState", Qos(depth=10, latched=True), "1 Hz", "publishing"
)
INSTRUCTION = Topic("/e0/instruction", "std_msgs/msg/String", Qos(depth=1, latched=True), "on change", "-")
HEARTBEAT = Topic("/e0/heartbeat", "std_msgs/msg/Bool", Qos(depth=10), "20 Hz, if there is one; false: stop", "-")
ARM_FAULT = Topic(
    "/e0/arm_fault", "std_msgs/msg/String", Qos(depth=10, latched=True), "10 Hz, if the arm is watched; empty: fit", "-"
)
SPEED = Topic("/e0/speed", "std_msgs/msg/Float64", Qos(depth=1, latched=True), "on change; share of full speed", "-")
SIM_FAULT = Topic(
    "/e0/sim/fault",
    "std_msgs/msg/String",
    Qos(depth=10),
    "an error of Franka's for the plant to have; hand_died, hand_back",
    "-",
    privileged=True,
)
SIM_STATE = Topic("/e0/sim/state", "e0_msgs/msg/SimState", Qos(), "per control step", "control step", privileged=True)
TF_STATIC = Topic("/tf_static", "tf2_msgs/msg/TFMessage", Qos(latched=True), "on change", "-")
DIAGNOSTICS = Topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", Qos(), "1 Hz", "publishing")

TOPICS = (
    CLOCK,
    JOINT_STATES,
    GRIPPER_STATES,
    TRAJECTORY,
    IMPEDANCE_TARGET,
    SIM_STEP,
    GRIPPER_COMMAND,
    OBSERVATION,
    ACTION_CHUNK,
    SHADOW_CHUNK,
    EXECUTOR_STATE,
    EPISODE_EVENT,
    RECORDER_STATE,
    INSTRUCTION,
    HEARTBEAT,
    ARM_FAULT,
    SPEED,
    SIM_FAULT,
    SIM_STATE,
    TF_STATIC,
    DIAGNOSTICS,
)
"""All but the cameras', which are one per view: `camera_topic(view)` and `camera_info_topic(view)`."""

ROBOT_STATE = Topic(
    "/franka_robot_state_broadcaster/robot_state",
    "franka_msgs/msg/FrankaRobotState",
    Qos(depth=1, reliable=False),
    "1 kHz (plant 100 Hz)",
    "measurement",
)
"""Franka's own state, which `arm_session` reads. Its type comes with franka_ros2; bags have what follows from it."""
MEASURED_JOINTS, DESIRED_JOINTS = (
    Topic(
        f"/franka_robot_state_broadcaster/{which}_joint_states",
        "sensor_msgs/msg/JointState",
        Qos(depth=1, reliable=False),
        "1 kHz (plant 100 Hz)",
        "measurement",
    )
    for which in ("measured", "desired")
)
"""The arm and its latest set-point, for whoever looks on; no node of ours reads them."""

TRIGGER = "std_srvs/srv/Trigger"
ARM = Service("/e0/arm", "e0_msgs/srv/Arm", "chunk_executor")
DISARM = Service("/e0/disarm", TRIGGER, "chunk_executor")
HOLD = Service("/e0/hold", TRIGGER, "chunk_executor")
STOP = Service("/e0/stop", TRIGGER, "chunk_executor")
RESET_STOP = Service("/e0/reset_stop", TRIGGER, "chunk_executor")
STEP = Service("/e0/step", TRIGGER, "chunk_executor")
RECOVER = Service("/e0/arm/recover", TRIGGER, "arm_session")
HOME = Service("/e0/arm/home", TRIGGER, "arm_session")
REST = Service("/e0/arm/rest", TRIGGER, "arm_session")
WAVE = Service("/e0/arm/wave", TRIGGER, "arm_session")
START_EPISODE = Service("/e0/start_episode", "e0_msgs/srv/StartEpisode", "episode_recorder")
END_EPISODE = Service("/e0/end_episode", "e0_msgs/srv/EndEpisode", "episode_recorder")
SET_INSTRUCTION = Service("/e0/set_instruction", "e0_msgs/srv/SetInstruction", "observation_sync")
RESET_POLICY = Service("/e0/policy/reset", TRIGGER, "policy")
RESET_SIM = Service("/e0/sim/reset", "e0_msgs/srv/ResetSim", "bridge")
RESET_EXPERT = Service("/e0/expert/reset", "e0_msgs/srv/ResetSim", "experts")
ENGAGE = Service("/e0/teleop/engage", TRIGGER, "gello_teleop")
RELEASE = Service("/e0/teleop/release", TRIGGER, "gello_teleop")

SERVICES = (
    ARM,
    DISARM,
    HOLD,
    STOP,
    RESET_STOP,
    STEP,
    RECOVER,
    HOME,
    REST,
    WAVE,
    START_EPISODE,
    END_EPISODE,
    SET_INSTRUCTION,
    RESET_POLICY,
    RESET_SIM,
    RESET_EXPERT,
    ENGAGE,
    RELEASE,
)


def message_class(type_name: str) -> Any:
    """The generated class of `package/msg/Name` or `package/srv/Name`."""
    from importlib import import_module

    package, kind, name = type_name.split("/")
    return getattr(import_module(f"{package}.{kind}"), name)
