"""Every check: its fault, injected, is found with the cure; what is well is green; what cannot be seen is grey."""

from __future__ import annotations

import pytest
from doctor.fake_machine import GB, Fake, frozen, holed, stream, take, uneven

from e0_ros.doctor.checks import CHECKS, chosen, examine
from e0_ros.doctor.finding import GREEN, GREY, RED, YELLOW, Bench, Finding
from e0_ros.doctor.middleware import ARM_PACKAGES

ARM = {"robot_ip": "172.16.0.2"}
TWO = {"peers": ("gpu",)}
GENERIC = "Linux version 6.8.0-31-generic (gcc 13) #31-Ubuntu SMP PREEMPT_DYNAMIC"
RT = "Linux version 6.8.1-1015-realtime (gcc 13) #16-Ubuntu SMP PREEMPT_RT"
LIMITS = (
    "Limit                     Soft Limit           Hard Limit           Units\n"
    "Max locked memory         {memory:<20} {memory:<20} bytes\n"
    "Max realtime priority     {priority:<20} {priority:<20} "
)
HUB = "/sys/bus/usb/devices/usb1/idVendor"
TIMER = "/sys/bus/usb-serial/devices/ttyUSB0/latency_timer"
GOVERNOR = "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"
MANAGER = "controller_manager: {ros__parameters: {update_rate: 1000}}"
NESTED = "/**: {controller_manager: {ros__parameters: {overruns: {manage: true}}}}"
BLEND = "arm: {{ros__parameters: {{allow_trajectory_replacement: {}}}}}"
JTC = "joint_trajectory_controller"
TYPED = f"controller_manager: {{ros__parameters: {{arm: {{type: {JTC}/JointTrajectoryController}}}}}}\n"
PING = (
    "10000 packets transmitted, {got} received, {lost}% packet loss, time 10012ms\n"
    "rtt min/avg/max/mdev = 0.101/{mean}/{worst}/0.040 ms"
)
GPU = "NVIDIA GeForce RTX 4090, 550.1, 22000, 24564"


def limits(fake, priority="0", memory="8388608", capabilities="0000000000000000"):
    fake.file("/proc/self/limits", LIMITS.format(priority=priority, memory=memory))
    fake.file("/proc/self/status", f"Name:\tpython\nCapEff:\t{capabilities}")


def chrony(fake, offset_s, leap="Normal"):
    fake.answers(
        "chronyc",
        f"Reference ID    : 0A\nSystem time     : {offset_s:.9f} seconds slow of NTP time\nLeap status     : {leap}",
    )


def env(fake, **variables):
    fake.wheels().environ.update(variables)


def jazzy(fake, *packages, **more):
    fake.install("rmw_fastrtps_cpp", *packages)
    fake.environ.update(more)


def usb_cameras(fake, *speeds_and_buses):
    for i, (speed, bus) in enumerate(speeds_and_buses):
        fake.camera(f"{bus}-{i + 1}", speed, bus).file(f"/sys/bus/usb/devices/usb{bus}/speed", str(speed))


def with_yaml(text):
    return lambda fake: {**ARM, "controllers": fake.yaml(text)}


def version_of_controller(version):
    def prepare(fake):
        fake.install(**{JTC: version})
        return {**ARM, "controllers": fake.yaml(TYPED)}

    return prepare


def gave(fake, **values):
    for name, value in values.items():
        setattr(fake, name, value)


def ping(mean=0.24, worst=0.5, lost=0):
    def prepare(fake):
        fake.answers("ping", PING.format(got=10000 - lost, lost=lost / 100, mean=mean, worst=worst))
        return ARM

    return prepare


def silent(out="", err=""):
    return lambda fake: fake.answers("ping", out, 1, err) and ARM


def card(**how):
    def prepare(fake):
        fake.file("/proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable:    4000000 kB")
        return {"checkpoint": fake.checkpoint(**how)}

    return prepare


CASES = [
    ("kernel", RED, "enable realtime-kernel", lambda f: f.file("/proc/version", GENERIC) and ARM),
    ("kernel", YELLOW, "linux-image-rt-amd64", lambda f: f.file("/proc/version", GENERIC)),
    ("kernel", GREEN, "", lambda f: f.file("/proc/version", RT) and ARM),
    ("kernel", GREEN, "", lambda f: f.file("/proc/version", GENERIC).file("/sys/kernel/realtime", "1") and ARM),
    ("kernel", GREY, "", lambda f: ARM),
    ("rtprio", RED, "rtprio 99", lambda f: limits(f) or ARM),
    ("rtprio", YELLOW, "limits.conf", lambda f: limits(f, priority="95")),
    ("rtprio", GREEN, "", lambda f: limits(f, priority="99") or ARM),
    ("rtprio", GREEN, "", lambda f: limits(f, capabilities="000001ffffffffff") or ARM),
    ("rtprio", GREY, "", lambda f: ARM),
    ("memlock", RED, "memlock unlimited", lambda f: limits(f) or ARM),
    ("memlock", GREEN, "", lambda f: limits(f, memory="unlimited") or ARM),
    ("memlock", GREY, "", lambda f: ARM),
    ("governor", YELLOW, "cpupower frequency-set -g performance",
     lambda f: f.file(GOVERNOR.format(0), "performance").file(GOVERNOR.format(1), "powersave") and ARM),
    ("governor", GREEN, "", lambda f: f.file(GOVERNOR.format(0), "performance") and ARM),
    ("governor", GREY, "", lambda f: ARM),
    ("shared_memory", YELLOW, "--shm-size=1g", lambda f: gave(f, free=64 * 2**20)),
    ("shared_memory", YELLOW, "fastdds shm clean", lambda f: gave(f, free=64 * 2**20)),
    ("shared_memory", GREEN, "", lambda f: gave(f, free=GB)),
    ("shared_memory", GREY, "", lambda f: None),
    ("mixing", RED, "sources none", lambda f: f.wheels().install() and None),
    ("mixing", RED, "python:=/usr/bin/python3.12", lambda f: f.install() and gave(f, python=(3, 11))),
    ("mixing", RED, "source one of them",
     lambda f: jazzy(f, AMENT_PREFIX_PATH=f"{f.install().folder}/jazzy:/opt/ros/a:/opt/ros/b")),
    ("mixing", YELLOW, "conda deactivate", lambda f: jazzy(f, CONDA_PREFIX="/home/me/conda")),
    ("mixing", GREEN, "", lambda f: f.wheels() and None),
    ("mixing", GREEN, "", lambda f: f.install() and None),
    ("mixing", GREY, "", lambda f: None),
    ("messages", RED, "colcon build", lambda f: f.wheels() and None),
    ("messages", GREEN, "", lambda f: f.wheels().site("e0_msgs") and None),
    ("messages", GREEN, "", lambda f: f.install("e0_msgs") and None),
    ("messages", GREY, "", lambda f: None),
    ("arm_packages", RED, "ros-jazzy-realsense2-camera", lambda f: f.install(*ARM_PACKAGES[:4]) and ARM),
    ("arm_packages", RED, "build franka_ros2", lambda f: f.install("realsense2_camera") and ARM),
    ("arm_packages", YELLOW, "apt-get", lambda f: f.install() and None),
    ("arm_packages", GREEN, "", lambda f: f.install(*ARM_PACKAGES) and ARM),
    ("arm_packages", GREY, "", lambda f: f.wheels() and ARM),
    ("rmw", RED, "unset RMW", lambda f: env(f, RMW_IMPLEMENTATION="rmw_cyclonedds_cpp")),
    ("rmw", RED, "ros-jazzy-rmw-zenoh-cpp", lambda f: jazzy(f, RMW_IMPLEMENTATION="rmw_zenoh_cpp")),
    ("rmw", YELLOW, "rmw_cyclonedds_cpp (franka_ros2#201", lambda f: jazzy(f) or ARM),
    ("rmw", GREEN, "", lambda f: jazzy(f, "rmw_cyclonedds_cpp", RMW_IMPLEMENTATION="rmw_cyclonedds_cpp") or ARM),
    ("rmw", GREEN, "", lambda f: env(f)),
    ("rmw", GREY, "", lambda f: ARM),
    ("discovery", RED, "0 to 101", lambda f: env(f, ROS_DOMAIN_ID="200")),
    ("discovery", RED, "SUBNET, LOCALHOST", lambda f: env(f, ROS_AUTOMATIC_DISCOVERY_RANGE="LAN")),
    ("discovery", RED, "ROS_STATIC_PEERS='gpu'", lambda f: TWO),
    ("discovery", RED, "unset ROS_LOCALHOST_ONLY", lambda f: env(f, ROS_LOCALHOST_ONLY="1") or TWO),
    ("discovery", YELLOW, "export ROS_DOMAIN_ID=N", lambda f: env(f, ROS_AUTOMATIC_DISCOVERY_RANGE="SUBNET")),
    ("discovery", YELLOW, "ROS_LOCALHOST_ONLY=1", lambda f: env(f, ROS_DISTRO="humble", ROS_STATIC_PEERS="gpu")),
    ("discovery", GREEN, "", lambda f: env(f, ROS_DOMAIN_ID="7", ROS_AUTOMATIC_DISCOVERY_RANGE="SUBNET") or TWO),
    ("discovery", GREEN, "", lambda f: env(f, ROS_STATIC_PEERS="gpu") or TWO),
    ("overruns", RED, "overruns: {manage: false}", with_yaml(MANAGER)),
    ("overruns", RED, "franka_ros2#108", with_yaml(NESTED)),
    ("overruns", RED, "controllers_yaml", with_yaml("- not\n- a mapping")),
    ("overruns", GREEN, "", with_yaml("/left/controller_manager: {ros__parameters: {overruns.manage: false}}")),
    ("overruns", GREEN, "", with_yaml("controller_manager: {ros__parameters: {overruns: {manage: false}}}")),
    ("overruns", GREEN, "", lambda f: f.install("franka_bringup") and ARM),
    ("overruns", GREY, "", lambda f: ARM),
    ("replacement", RED, "allow_trajectory_replacement: false", version_of_controller("6.1.0")),
    ("replacement", RED, "replacement: false", with_yaml(TYPED + BLEND.format("true"))),
    ("replacement", YELLOW, "replacement: false", with_yaml(TYPED)),
    ("replacement", GREEN, "", version_of_controller("4.30.1")),
    ("replacement", GREEN, "", with_yaml(TYPED + BLEND.format("false"))),
    ("replacement", GREEN, "", lambda f: f.install("franka_bringup") and ARM),
    ("replacement", GREY, "", with_yaml(MANAGER)),
    ("overruns", GREEN, "", lambda f: f.install(distro="humble") and {**ARM, "controllers": f.yaml(MANAGER)}),
    ("franka_ros2", RED, "2.4.0 or newer", lambda f: f.install(distro="humble", franka_bringup="2.1.0") and ARM),
    ("franka_ros2", RED, "3.3.0 or newer", lambda f: f.install(franka_bringup="3.2.2") and ARM),
    ("franka_ros2", GREEN, "", lambda f: f.install(distro="humble", franka_bringup="2.5.0") and ARM),
    ("franka_ros2", GREEN, "", lambda f: f.install(franka_bringup="3.4.0") and ARM),
    ("franka_ros2", GREY, "", lambda f: ARM),
    ("firmware", RED, "update the arm", lambda f: f.install(libfranka="0.18.2") and {**ARM, "system_image": "5.7.2"}),
    ("firmware", RED, "0.18 or newer", lambda f: f.install(libfranka="0.9.2") and ARM),
    ("firmware", YELLOW, "Incompatible", lambda f: f.install(libfranka="0.15.3") and {**ARM, "system_image": "5.9.0"}),
    ("firmware", GREEN, "", lambda f: f.install(libfranka="0.18.2") and {**ARM, "system_image": "5.9.1"}),
    ("firmware", GREEN, "", lambda f: f.file("/usr/local/lib/libfranka.so.0.15.3", "") and {"system_image": "5.8.0"}),
    ("firmware", GREY, "--system-image", lambda f: f.install(libfranka="0.18.2") and ARM),
    ("firmware", GREY, "", lambda f: ARM),
    ("robot_link", RED, "straight into a network card", ping(mean=0.62)),
    ("robot_link", RED, "ethtool", ping(worst=1.4)),
    ("robot_link", RED, "no switch", ping(lost=3)),
    ("robot_link", RED, "check address", silent("10000 packets transmitted, 0 received")),
    ("robot_link", RED, "check address", silent(err="ping: robot: Name or service not known")),
    ("robot_link", GREEN, "", ping()),
    ("robot_link", GREY, "--robot-ip 17", silent(err="ping: cannot flood; minimal interval allowed for user is 2ms")),
    ("robot_link", GREY, "iputils-ping", lambda f: ARM),
    ("robot_link", GREY, "--robot-ip", lambda f: None),
    ("robot_link", GREEN, "", lambda f: gave(f, take=take(joints=stream(1000, 0))) or ping()(f)),
    ("camera_speed", RED, "USB 3 cable", lambda f: usb_cameras(f, (5000, 2), (480, 1))),
    ("camera_speed", RED, "rs-enumerate-devices", lambda f: usb_cameras(f, (5000, 2)) or ARM),
    ("camera_speed", GREEN, "", lambda f: usb_cameras(f, (5000, 2), (10000, 4)) or ARM),
    ("camera_speed", GREY, "", lambda f: ARM),
    ("camera_speed", GREY, "--robot-ip", lambda f: f.file(HUB, "1d6b") and None),
    ("camera_bandwidth", RED, "a USB controller of its own",
     lambda f: usb_cameras(f, (5000, 2), (5000, 2)) or {"camera_profile": "1920x1080x30", "depth": True}),
    ("camera_bandwidth", GREEN, "",
     lambda f: usb_cameras(f, (5000, 2), (5000, 4)) or {"camera_profile": "1920x1080x30", "depth": True}),
    ("camera_bandwidth", GREEN, "", lambda f: usb_cameras(f, (5000, 2), (5000, 2))),
    ("camera_bandwidth", GREY, "", lambda f: ARM),
    ("latency_timer", RED, 'ATTR{latency_timer}="1"', lambda f: f.file(TIMER, "16") and {"gello": True}),
    ("latency_timer", YELLOW, "sudo tee", lambda f: f.file(TIMER, "16") and None),
    ("latency_timer", RED, "plug in", lambda f: f.file(HUB, "1d6b") and {"gello": True}),
    ("latency_timer", GREY, "", lambda f: {"gello": True}),
    ("latency_timer", GREEN, "", lambda f: f.file(TIMER, "1") and {"gello": True}),
    ("latency_timer", GREY, "--gello", lambda f: ARM),
    ("clock", RED, "chronyc makestep", lambda f: chrony(f, 0.02) or TWO),
    ("clock", YELLOW, "apt-get install chrony", lambda f: chrony(f, 0.0, "Not synchronised")),
    ("clock", RED, "gpu: sudo apt-get", lambda f: f.answers("timedatectl", "no\n") and TWO),
    ("clock", YELLOW, "chrony", lambda f: f.answers("timedatectl", "no\n") and None),
    ("clock", YELLOW, "minpoll", lambda f: f.answers("timedatectl", "yes\n") and TWO),
    ("clock", GREEN, "", lambda f: chrony(f, 0.0001) and None),
    ("clock", GREY, "`e0 doctor --only clock` on gpu too", lambda f: chrony(f, 0.0001) or TWO),
    ("clock", GREEN, "", lambda f: f.answers("timedatectl", "yes\n") and None),
    ("clock", GREY, "", lambda f: f.answers("timedatectl", "", 1, "System has not been booted with systemd") and None),
    ("streams", RED, "start its driver", lambda f: gave(f, take=take(wrist=stream(30, 0)))),
    ("streams", RED, "auto exposure", lambda f: gave(f, take=take(wrist=stream(20, 5)))),
    ("streams", RED, "same profile", lambda f: gave(f, take=take(wrist=holed(30, 5, 0.08)))),
    ("streams", GREEN, "", lambda f: gave(f, take=take(seconds=5, wrist=stream(30.3, 5)))),
    ("streams", RED, "synchronise the clocks", lambda f: gave(f, take=take(wrist=stream(30, 5, received_ms=900)))),
    ("streams", RED, "synchronise the clocks", lambda f: gave(f, take=take(wrist=stream(30, 5, received_ms=34)))),
    ("streams", RED, "reliable QoS", lambda f: gave(f, take=take(wrist=uneven(30, 5, 120)))),
    ("streams", RED, "restart the camera", lambda f: gave(f, take=take(wrist=frozen(30, 5, 2)))),
    ("streams", RED, "USB bandwidth", lambda f: gave(f, take=take(wrist=holed(30, 5, 1)))),
    ("streams", GREEN, "", lambda f: gave(f, take=take())),
    ("streams", GREY, "start the graph", lambda f: None),
    ("disk", RED, "free space", lambda f: gave(f, free=GB) or {"bag_dir": f.bag(mb=10, seconds=2)}),
    ("disk", YELLOW, "bag_dir:=", lambda f: gave(f, free=9 * GB) or {"bag_dir": f.bag(mb=10, seconds=2)}),
    ("disk", GREEN, "", lambda f: gave(f, free=100 * GB) or {"bag_dir": f.bag(mb=10, seconds=2)}),
    ("disk", GREY, "", lambda f: None),
    ("gpu", RED, "reboot", lambda f: f.answers("nvidia-smi", "Failed to initialize NVML", 18) and None),
    ("gpu", YELLOW, "CUDA build", lambda f: f.answers("nvidia-smi", GPU).site("torch-2.13.0+cpu.dist-info") and None),
    ("gpu", GREEN, "", lambda f: f.answers("nvidia-smi", GPU).site("torch-2.13.0.dist-info") and None),
    ("gpu", GREY, "the policy's Python", lambda f: f.answers("nvidia-smi", GPU) and None),
    ("gpu", GREY, "", lambda f: None),
    ("checkpoint", RED, "smaller model", card(weights=3 * GB)),
    ("checkpoint", RED, "copy the checkpoint again", card(weights=1000, held=900)),
    ("checkpoint", RED, "views:=base,side", card(views=("base", "side"))),
    ("checkpoint", RED, "for an arm", card(representation="ee_delta_step")),
    ("checkpoint", RED, "e0 train", lambda f: {"checkpoint": str(f.folder)}),
    ("checkpoint", GREEN, "", card(weights=10**6)),
    ("checkpoint", GREY, "--checkpoint", lambda f: None),
    ("checkpoint", GREY, "", lambda f: {"checkpoint": f.checkpoint()}),
    ("vulkan", YELLOW, "python -m sim.vulkan", lambda f: f.answers("vulkan", "null\n") and None),
    ("vulkan", GREEN, "", lambda f: f.answers("vulkan", '{"device": "llvmpipe", "cpu": true}\n') and None),
    ("vulkan", GREY, "", lambda f: f.answers("vulkan", "", 1, "No module named 'sim'") and None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "level", "cure", "prepare"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_finds_it_and_says_the_cure(name, level, cure, prepare, tmp_path):
    fake = Fake(tmp_path)
    asked = prepare(fake)
    (result,) = examine(chosen([name], False), fake.machine(), Bench(**asked) if isinstance(asked, dict) else Bench())
    assert (result.finding.level, "failed" in result.finding.seen) == (level, False), result.finding
    assert cure in result.finding.cure


def test_every_check_has_a_fault_a_good_case_and_an_unseen_one():
    levels = {check.name: {level for name, level, *_ in CASES if name == check.name} for check in CHECKS}
    always_seen = {"discovery"}  # of the environment alone
    assert [n for n, found in levels.items() if not found & {RED, YELLOW} or GREEN not in found] == []
    assert [n for n, found in levels.items() if GREY not in found and n not in always_seen] == []


def test_nothing_is_green_where_nothing_can_be_seen(tmp_path):
    results = examine(CHECKS, Fake(tmp_path).machine(), Bench())
    assert {r.check.name for r in results if r.finding.level == GREEN} <= {"discovery"}


def test_a_check_that_breaks_is_grey_and_hides_no_other(tmp_path):
    fake = Fake(tmp_path).answers("vulkan", "no json\n").file("/proc/version", RT)
    found = {r.check.name: r.finding for r in examine(chosen(["vulkan", "kernel"], False), fake.machine(), Bench())}
    assert found["vulkan"].level == GREY
    assert "the check failed" in found["vulkan"].seen
    assert found["kernel"].level == GREEN


def test_bad_news_needs_a_cure():
    with pytest.raises(ValueError, match="cure"):
        Finding(RED, "broken")


def test_the_link_is_measured_at_a_kilohertz(tmp_path):
    fake = Fake(tmp_path).answers("ping", "")
    examine(chosen(["robot_link"], False), fake.machine(), Bench(**ARM))
    assert "-i 0.001 -c 10000 -s 1200" in " ".join(fake.commands[0])
    assert fake.commands[0][-1] == ARM["robot_ip"]


def test_the_link_of_an_arm_that_is_driven_is_left_alone(tmp_path):
    fake = Fake(tmp_path)
    fake.take = take()
    (result,) = examine(chosen(["robot_link"], False), fake.machine(), Bench(**ARM))
    assert result.finding.level == GREY and "stop the graph" in result.finding.cure and not fake.commands


def test_no_cure_removes_shared_memory_that_a_graph_uses(tmp_path):
    fake = Fake(tmp_path)
    fake.free = 0
    (result,) = examine(chosen(["shared_memory"], False), fake.machine(), Bench())
    assert "rm " not in result.finding.cure
