"""The node graphs as data: which processes, with which settings, under which interpreter, and what if one dies.

Both launchers read this: `ros2 launch e0_ros <graph>.launch.py` (`e0_ros.ros_launch`) and `e0 launch <graph>`
(`e0_ros.launcher`). `e0_ros.resolve.resolve` checks arguments and settings before anything starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from e0_ros.config import ConfigError, check, setting
from e0_ros.core.camera_model import camera_profile
from e0_ros.core.step_rows import STEP_NAMES
from e0_ros.drivers import ARM_NODES, CONTINUE, CONTROLLERS, RESTART, SHUTDOWN, Foreign, drivers, measured


@dataclass(frozen=True)
class Process:
    """One of our own nodes.

    Args:
        name: name of the node and of its console script.
        module: module with its `main()`.
        configs: classes of its settings, each as `module:Class`.
        interpreter: the graph argument that names its interpreter: `python`, `policy_python` or `sim_python`.
        on_death: SHUTDOWN the graph, RESTART the node, or CONTINUE without it.
        settings: values other than the defaults.
        needs: Python packages without which its module cannot be imported, and which no ROS 2 install brings.

    """

    name: str
    module: str
    configs: tuple[str, ...]
    interpreter: str = "python"
    on_death: str = SHUTDOWN
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """Processes that make one robot work; `arguments` are the resolved ones."""

    name: str
    arguments: Any
    processes: tuple[Process, ...]
    foreign: tuple[Foreign, ...] = ()
    use_sim_time: bool = False

    @property
    def rivals(self) -> set[str]:
        """Names of nodes beside which it must not be started: all of ours, an arm's driver, and its own drivers'.

        Where somebody else is to plan, who plans may be there first.
        """
        ours, a = {node.name for node in NODES}, self.arguments
        if getattr(a, "source", "") == "external" or not getattr(a, "policy", True):
            ours -= {node.name for node in PLANNERS} - {process.name for process in self.processes}
        return ours.union(ARM_NODES, *(item.nodes for item in self.foreign))

    def interpreter(self, process: Process) -> str:
        """Interpreter that a process was given; empty: the launcher's own."""
        return str(getattr(self.arguments, process.interpreter) or self.arguments.python)

    def parameters(self, process: Process) -> dict[str, Any]:
        """ROS parameters of a process. An empty list is `[""]`, because ROS gives an empty one no type."""
        typed = {name: [""] if value == [] else value for name, value in process.settings.items()}
        return {**typed, "use_sim_time": self.use_sim_time}


_SYNC = ("e0_ros.nodes.observation_sync:ObservationNodeConfig", "e0_ros.core.observation_sync:SyncConfig")
_EXECUTOR = (
    "e0_ros.nodes.chunk_executor:NodeConfig",
    "e0_ros.core.chunk_executor:ExecutorConfig",
    "e0_ros.core.heartbeat:HeartbeatConfig",
    "e0_ros.core.arm_fault:ArmFaultConfig",
    "e0_ros.core.pace:PaceConfig",
)
_RECORDER = tuple(f"e0_ros.core.recorder_config:{name}" for name in ("RecorderConfig", "BagConfig", "StoreConfig"))
BRIDGE = Process("bridge", "sim.bridge", ("sim.bridge.settings:BridgeConfig",), "sim_python")
EXPERTS = Process("experts", "sim.experts", ("sim.experts:ExpertsConfig",), "sim_python")
SYNC = Process("observation_sync", "e0_ros.nodes.observation_sync", _SYNC)
_POLICY = ("e0_ros.core.policy_config:PolicyConfig",)
POLICY = Process("policy", "e0_ros.nodes.policy", _POLICY, "policy_python", needs=("mcap", "pyarrow", "rosbags"))
EXECUTOR = Process("chunk_executor", "e0_ros.nodes.chunk_executor", _EXECUTOR)
RECORDER = Process("episode_recorder", "e0_ros.nodes.episode_recorder", _RECORDER, needs=("mcap", "rosbags"))
_GRIPPER = ("e0_ros.nodes.gripper:GripperNodeConfig", "e0_ros.core.gripper_goals:GripperConfig")
GRIPPER = Process("gripper", "e0_ros.nodes.gripper", _GRIPPER)
_SESSION = (
    "e0_ros.nodes.arm_session:ArmSessionNodeConfig",
    "e0_ros.core.arm_session:ArmSessionConfig",
    "e0_ros.core.arm_setup:ArmSetupConfig",
    "e0_ros.core.fci:FciConfig",
)
ARM_SESSION = Process("arm_session", "e0_ros.nodes.arm_session", _SESSION, on_death=RESTART)
_TELEOP = ("e0_ros.nodes.gello_teleop:TeleopConfig", "e0_ros.core.gello:GelloConfig")
TELEOP = Process("gello_teleop", "e0_ros.nodes.gello_teleop", _TELEOP)
FAKE_CAMERA = Process("fake_camera", "sim.bridge.camera", ("sim.fake_camera:FakeCameraConfig",))
NODES = (BRIDGE, FAKE_CAMERA, EXPERTS, SYNC, POLICY, EXECUTOR, GRIPPER, ARM_SESSION, RECORDER, TELEOP)
"""Every node of ours. In a simulation the death of any of them ends the graph."""
PLANNERS = (EXPERTS, POLICY, TELEOP)
"""Those that only say where the arm is to go."""


PLANT_LATE_MS = 500.0
"""How far the stamps of simulated physics may be behind the clock on a busy machine."""
HAND_HZ = 15.0
"""Rate of franka_gripper's joint states."""
DEFAULT_VIEWS, DEFAULT_PX = ("base", "wrist"), 224
"""Of a simulator's cameras, where no checkpoint says what it was trained with."""
FAKE_HAND_HZ = 10.0
"""Rate of franka_gripper's fake_gripper_state_publisher."""
TELEOP_PACE = {"exhausted_ms": 20.0}
"""What the executor does otherwise where a hand leads: a hold soon after silence."""


@dataclass(frozen=True)
class Simulator:
    """What a graph has to know of a simulator: its arm, and in real time its rates and how late its joints may be.

    ManiSkill's joint states wait for the processor now and then, which a robot's do not. One with `step_names` is moved
    by rows of columns with those names, its benchmark's own, and only in lock-step.
    """

    embodiment: str
    camera_rate_hz: float
    joint_rate_hz: float
    gripper_rate_hz: float
    joint_max_age_ms: float
    step_names: tuple[str, ...] = ()

    @property
    def step_columns(self) -> int:
        """Columns of the benchmark's own rows; 0: it takes none."""
        return len(self.step_names)

    @property
    def own(self) -> dict[str, str]:
        """Its mode and controller where nothing else is asked for."""
        stepped = {"mode": "lockstep", "controller": "step"}
        return stepped if self.step_columns else {"mode": "realtime", "controller": "joint_trajectory"}


SIMULATORS = {
    "maniskill": Simulator("panda", 20.0, 100.0, 20.0, joint_max_age_ms=100.0),
    "fr3_plant": Simulator("fr3", 20.0, 1000.0, 15.0, joint_max_age_ms=50.0),
    "vlabench": Simulator("panda", 10.0, 10.0, 10.0, joint_max_age_ms=200.0),
    "robotwin": Simulator("dual_panda", 20.0, 20.0, 20.0, joint_max_age_ms=100.0, step_names=STEP_NAMES["robotwin"]),
    "libero": Simulator("panda", 20.0, 20.0, 20.0, joint_max_age_ms=100.0, step_names=STEP_NAMES["libero"]),
}


@dataclass(frozen=True)
class SimArguments:
    """A simulated robot, driven by an expert, a recording or a policy."""

    simulator: str = setting("maniskill", "where the arm lives", choices=SIMULATORS)
    mode: str = setting("", "who owns the time; empty: realtime, or lockstep for a simulator that can only be stepped",
                        choices=("", "realtime", "lockstep"))  # fmt: skip
    source: str = setting("scripted", "who plans: a privileged expert, a policy, a recording, a GELLO, or none here",
                          choices=("scripted", "policy", "replay", "teleop", "external"))  # fmt: skip
    task: str = setting("", "task of the first scene; empty: the simulator's first")
    seed: int = setting(0, "seed of the first scene", low=0, high=2**63 - 1)
    views: tuple[str, ...] = setting(
        (), "camera views, the reference view first; empty: the checkpoint's, or base,wrist"
    )
    size: int = setting(0, "height and width of the views; 0: as the checkpoint was trained with, or 224", unit="px",
                        low=0, high=2048)  # fmt: skip
    controller: str = setting("", "how commands reach the arm; empty: joint_trajectory, or the simulator's own steps",
                              choices=("", "joint_trajectory", "impedance", "step"))  # fmt: skip
    embodiment: str = setting("", "arm; empty: the simulator's own")
    checkpoint: str = setting("", "source:=policy: the checkpoint, a folder (E0's or LeRobot's) or ws://HOST:PORT")
    shadow: bool = setting(False, "the checkpoint's policy only watches, whoever moves the arm")
    recording: str = setting("", "source:=replay: a bag's folder, an .mcap or an .npz file")
    gello: str = setting("", "file of the leader, by e0 gello calibrate; empty: that of e0 gello fake")
    gello_port: str = setting("", "serial port of the leader; given, it can take over from any other source")
    fci: str = setting("", "real time: behave as franka_ros2 of this distribution does, with its state, reflexes, "
                       "recovery and hand (needs franka_msgs)", choices=("", "humble", "jazzy"))  # fmt: skip
    speed: float = setting(1.0, "share of a plan's own speed", low=0.0, high=1.0)
    step_through: bool = setting(False, "follow each plan of a machine only when /e0/step releases it")
    record: bool = setting(True, "write a bag per episode")
    bag_dir: str = setting("bags", "folder of the bags")
    settings: str = setting("", "YAML file with settings by node")
    python: str = setting("", "interpreter of the nodes; empty: the launcher's own")
    policy_python: str = setting("", "interpreter of the policy; empty: as python")
    sim_python: str = setting("", "interpreter of the simulator; empty: as python")

    def __post_init__(self) -> None:
        check(self)
        own = SIMULATORS[self.simulator].own
        stepped = own["controller"] == "step"
        for name in own:
            object.__setattr__(self, name, getattr(self, name) or own[name])
        if stepped != (self.controller == "step") or (stepped and self.mode != "lockstep"):
            those = ", ".join(name for name, simulator in SIMULATORS.items() if simulator.step_columns)
            raise ConfigError(
                f"simulator:={self.simulator} mode:={self.mode} controller:={self.controller}: steps (mode:=lockstep "
                f"controller:=step) are for {those}, and nothing else is"
            )
        needed = {"policy": "checkpoint", "replay": "recording"}.get(self.source) or (self.shadow and "checkpoint")
        if needed and not getattr(self, needed):
            raise ConfigError(f"{'shadow:=true' if self.shadow else f'source:={self.source}'} needs {needed}:=PATH")
        if self.shadow and (self.source in ("policy", "replay") or self.mode == "lockstep"):
            raise ConfigError("shadow:=true needs mode:=realtime and a source other than a policy, which it is itself")
        if (self.source == "teleop" or self.gello_port) and self.mode == "lockstep":
            raise ConfigError("a leader needs mode:=realtime; a hand does not wait")
        if (self.fci or self.speed != 1.0 or self.step_through) and self.mode == "lockstep":
            raise ConfigError("fci, speed and step_through need mode:=realtime")


@dataclass(frozen=True)
class BenchArguments:
    """What every graph on the real arm takes."""

    robot_ip: str = setting("", "address of the arm's control unit")
    use_fake_hardware: bool = setting(False, "franka_ros2's own stand-in for the arm")
    controller: str = setting("joint_trajectory", "how commands reach it", choices=("joint_trajectory", "impedance"))
    embodiment: str = setting("fr3", "arm: a shipped name or the path of a YAML file")
    views: tuple[str, ...] = setting(("base", "wrist"), "camera views, the reference view first")
    serials: tuple[str, ...] = setting((), "RealSense serial number per view; empty: any camera for a single view")
    profiles: tuple[str, ...] = setting(("640x480x30",), "colour profile of the cameras: one for all, or one per view, "
                                        "all at one rate")  # fmt: skip
    camera_config: str = setting("", "YAML file of parameters for every realsense2_camera, e.g. of exposure")
    hardware_sync: bool = setting(False, "the cameras are wired: the first triggers the depth of the rest")
    cameras: bool = setting(True, "start the cameras; false: they run elsewhere")
    fake_cameras: bool = setting(False, "pictures of no scene in their place; its settings have the faults")
    controllers_yaml: str = setting("", "controllers of the arm; empty: the shipped config/controllers.yaml")
    calibration: str = setting("", "file of the bench, by e0 calibrate: latencies, and places of cameras")
    trained_calibration: str = setting(
        "", "the same of when the policy's demonstrations were recorded: E0 is told how far cameras were moved since"
    )
    gello: str = setting("", "file of the leader, by e0 gello calibrate; with a policy: it can take over")
    gello_port: str = setting("", "serial port of the leader; empty: as in its file")
    gripper: bool = setting(True, "drive the Franka Hand; its stand-in with use_fake_hardware has no actions")
    arm_session: bool = setting(True, "watch the arm's state, recover it, move it home; not with use_fake_hardware")
    speed: float = setting(1.0, "share of a plan's own speed", low=0.0, high=1.0)
    step_through: bool = setting(False, "follow each plan of a machine only when /e0/step releases it")
    instruction: str = setting("", "instruction at start")
    record: bool = setting(True, "write a bag per episode")
    bag_dir: str = setting("bags", "folder of the bags")
    settings: str = setting("", "YAML file with settings by node")
    python: str = setting("", "interpreter of the nodes; empty: the launcher's own")

    def __post_init__(self) -> None:
        check(self)
        if not self.robot_ip and not self.use_fake_hardware:
            raise ConfigError("the arm's address is needed: robot_ip:=ADDRESS (or use_fake_hardware:=true)")
        real = self.cameras and not self.fake_cameras
        if real and len(self.serials) != len(self.views) and len(self.views) > 1:
            raise ConfigError(f"{len(self.views)} views need one serial number each: serials:=A,B (got {self.serials})")
        if self.serials and len(self.serials) != len(self.views):
            raise ConfigError(f"{len(self.serials)} serial numbers for {len(self.views)} views; one each is needed")
        self.camera_rate_hz()

    def camera_rate_hz(self) -> float:
        """Rate of every camera [Hz].

        Raises:
            ConfigError: a profile is not of the form 640x480x30, there are not as many as views, or rates differ.

        """
        rates = {camera_profile(profile)[2] for profile in self.profiles}
        if len(rates) != 1 or len(self.profiles) not in (1, len(self.views)):
            given = ", ".join(self.profiles)
            raise ConfigError(f"profiles are {given}; one for all views, or one per view, at one rate")
        return float(rates.pop())


@dataclass(frozen=True)
class TeleopArguments(BenchArguments):
    """A GELLO leader arm on a Franka Research 3 with RealSense cameras, or on the fake bench."""

    simulator: str = setting("", "fr3_plant: the fake bench in the place of arm and cameras", choices=("", "fr3_plant"))
    checkpoint: str = setting("", "with shadow:=true: checkpoint of a policy that watches")
    shadow: bool = setting(False, "the checkpoint's policy plans beside the human, and nothing follows its plans")
    policy_python: str = setting("", "interpreter of the policy; empty: as python")
    sim_python: str = setting("", "interpreter of the simulator; empty: as python")

    def __post_init__(self) -> None:
        if self.shadow != bool(self.checkpoint):
            raise ConfigError("shadow:=true and checkpoint:=PATH go together: beside a leader a policy only watches")
        if self.simulator:
            check(self)
            return
        super().__post_init__()
        if not self.gello:
            raise ConfigError("the leader's file is needed: gello:=PATH (e0 gello calibrate --out PATH writes it)")


@dataclass(frozen=True)
class FrankaArguments(BenchArguments):
    """A policy on a Franka Research 3 with RealSense cameras."""

    checkpoint: str = setting("", "checkpoint of the policy, a folder (E0's or LeRobot's) or ws://HOST:PORT")
    view_reference: str = setting("", "take by which to tell that a camera has moved; empty: the checkpoint's pictures")
    shadow: bool = setting(False, "the policy only watches: nothing follows its plans")
    policy_python: str = setting("", "interpreter of the policy; empty: as python")
    policy: bool = setting(True, "start the policy; false: it runs on another computer")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.policy and not self.checkpoint:
            raise ConfigError("the policy's checkpoint is needed: checkpoint:=PATH (policy:=false: it runs elsewhere)")


def sim_graph(a: SimArguments) -> Graph:
    """The simulator's bridge in the robot's place."""
    a = replace(a, views=a.views or DEFAULT_VIEWS, size=a.size or DEFAULT_PX)
    simulator, lockstep = SIMULATORS[a.simulator], a.mode == "lockstep"
    common = {"embodiment": a.embodiment or simulator.embodiment, "lockstep": lockstep}
    steps = {"step_columns": simulator.step_columns} if simulator.step_columns else {}
    patience: dict[str, Any] = (
        {} if lockstep else {"joint_max_age_ms": simulator.joint_max_age_ms, "stop_lead_ms": 20.0}
    )
    rates = {} if lockstep else {k: v for k, v in vars(simulator).items() if k.endswith("_hz")}
    rates |= {"gripper_rate_hz": HAND_HZ} if a.fci else {}
    rates["frozen_pixels_ms"] = 0.0  # a still scene is rendered to identical pixels
    scene, views = {"task": a.task, "seed": a.seed}, list(a.views)
    robot = {"simulator": a.simulator, "mode": a.mode, "controller": a.controller, "embodiment": common["embodiment"]}
    size = {"image_height": a.size, "image_width": a.size}
    patience.update(TELEOP_PACE if a.source == "teleop" else {})
    takeover = (_takeover(a, common),) if a.gello_port and a.source != "teleop" else ()
    paced = {"distribution": a.fci, "clock_offset_ms": PLANT_LATE_MS}
    session = (_session(a, str(common["embodiment"]), **paced),) if a.fci else ()
    hand = (_with(GRIPPER, embodiment=common["embodiment"]),) if a.fci else ()
    pace = {"speed": a.speed, "step_through": a.step_through} | ({"arm_fault_required": True} if session else {})
    expected = a.source if lockstep and a.source != "external" else ""
    watcher = (_policy(a, {**common, "shadow": True}),) if a.shadow else ()
    processes = (
        _with(BRIDGE, robot, scene, views=views, width_px=a.size, height_px=a.size, fci=a.fci),
        _with(SYNC, common, rates, size, views=views),
        *_source(a, common),
        *watcher,
        *takeover,
        _with(EXECUTOR, common, patience, pace, steps, output=a.controller, expected_source=expected),
        *hand,
        *session,
        _with(RECORDER, views=views, record=a.record, bag_dir=a.bag_dir),
    )
    return Graph("sim", a, processes, use_sim_time=lockstep)


def franka_graph(a: FrankaArguments) -> Graph:
    """The real arm, its cameras and a policy. Without the policy the executor holds and says so."""
    told = {"embodiment": a.embodiment, "shadow": a.shadow, "view_reference": a.view_reference, **_moved(a)}
    policy = replace(_policy(a, told), on_death=CONTINUE)
    sync, *others = _bench_processes(a)
    takeover = (_takeover(a, {"embodiment": a.embodiment}),) if a.gello else ()
    return Graph("franka", a, (sync, *(policy,) * a.policy, *takeover, *others), _drivers(a))


def teleop_graph(a: TeleopArguments) -> Graph:
    """The real arm, its cameras and a GELLO leader arm. Without the leader the executor holds and says so."""
    if a.simulator:
        shared = {f.name for f in fields(SimArguments)} & {f.name for f in fields(a)}
        simulated = SimArguments(source="teleop", **{name: getattr(a, name) for name in shared - {"embodiment"}})
        graph = sim_graph(simulated)
        told = (_with(p, p.settings, instruction=a.instruction) if p.name == SYNC.name else p for p in graph.processes)
        return replace(graph, name="teleop", processes=tuple(told))
    sync, executor, *others = _bench_processes(a)
    leader = replace(_teleop(a, {"embodiment": a.embodiment}), on_death=RESTART)
    watcher = (
        (replace(_policy(a, {"embodiment": a.embodiment, "shadow": True, **_moved(a)}), on_death=CONTINUE),)
        if a.shadow
        else ()
    )
    nodes = (sync, leader, *watcher, _with(executor, executor.settings, TELEOP_PACE), *others)
    return Graph("teleop", a, nodes, _drivers(a))


def _teleop(a: SimArguments | BenchArguments, common: Mapping[str, Any]) -> Process:
    return _with(TELEOP, {"embodiment": common["embodiment"]}, calibration=a.gello, port=a.gello_port)


def _takeover(a: SimArguments | BenchArguments, common: Mapping[str, Any]) -> Process:
    """A leader that takes the arm from another source on request, and without which that goes on."""
    leader = _teleop(a, common)
    return replace(_with(leader, leader.settings, engage="request"), on_death=RESTART)


def _source(a: SimArguments, common: Mapping[str, Any]) -> tuple[Process, ...]:
    if a.source == "external":
        return ()
    if a.source == "teleop":
        return (_teleop(a, common),)
    return (_with(EXPERTS, common, simulator=a.simulator),) if a.source == "scripted" else (_policy(a, common),)


def _policy(a: SimArguments | FrankaArguments | TeleopArguments, common: Mapping[str, Any]) -> Process:
    if isinstance(a, SimArguments) and a.source == "replay":
        return _with(POLICY, common, policy="replay", recording=a.recording)
    return _with(POLICY, common, policy="e0", checkpoint=a.checkpoint)


def _moved(a: BenchArguments) -> dict[str, bool]:
    return {"camera_places": True} if a.trained_calibration else {}


def _watched(a: BenchArguments) -> bool:
    return a.arm_session and not a.use_fake_hardware


def _drivers(a: BenchArguments) -> tuple[Foreign, ...]:
    return drivers(a, activated_by_us=_watched(a))


def _bench_processes(a: BenchArguments) -> tuple[Process, ...]:
    views = list(a.views)
    gripper = (_with(GRIPPER, embodiment=a.embodiment),) if a.gripper and not a.use_fake_hardware else ()
    session = (_session(a, a.embodiment),) if _watched(a) else ()
    pace = {"speed": a.speed, "step_through": a.step_through, "arm_fault_required": bool(session)}
    bench = measured(a)
    rates = {"camera_rate_hz": a.camera_rate_hz()} | ({"gripper_rate_hz": FAKE_HAND_HZ} if a.use_fake_hardware else {})
    late = {"camera_latency_ms": list(bench.latencies_ms(a.views))} if bench and bench.camera_latency_ms else {}
    lag = {"arm_lag_ms": bench.arm_lag_ms} if bench and bench.arm_lag_ms is not None else {}
    profile = a.profiles[0]
    fake = (_with(FAKE_CAMERA, embodiment=a.embodiment, views=views, profile=profile),) if a.fake_cameras else ()
    return (
        _with(SYNC, late, rates, embodiment=a.embodiment, views=views, instruction=a.instruction),
        _with(EXECUTOR, pace, lag, embodiment=a.embodiment, output=a.controller),
        *fake,
        *gripper,
        *session,
        _with(RECORDER, views=views, record=a.record, bag_dir=a.bag_dir),
    )


def _session(a: SimArguments | BenchArguments, embodiment: str, **settings: Any) -> Process:
    return _with(ARM_SESSION, settings, embodiment=embodiment, controller=CONTROLLERS[a.controller])


def _with(process: Process, *groups: Mapping[str, Any], **settings: Any) -> Process:
    merged: dict[str, Any] = {}
    for group in (*groups, settings):
        merged.update(group)
    return replace(process, settings=merged)


GRAPHS: dict[str, tuple[type, Callable[[Any], Graph]]] = {
    "sim": (SimArguments, sim_graph),
    "franka": (FrankaArguments, franka_graph),
    "teleop": (TeleopArguments, teleop_graph),
}
"""Per graph its arguments' class and what makes it of them."""
