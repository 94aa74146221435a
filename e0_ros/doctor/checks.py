"""Every check of `e0 doctor`: its name, its group, what it asks, and the function that looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from e0_ros.config import ConfigError, closest
from e0_ros.doctor import controllers, host, middleware, network, resources, streams, usb
from e0_ros.doctor.finding import Bench, Finding, grey
from e0_ros.doctor.machine import Machine


@dataclass(frozen=True)
class Check:
    """A check. A `slow` one takes seconds and runs only when measuring, or when it is named."""

    name: str
    group: str
    asks: str
    look: Callable[[Machine, Bench], Finding]
    slow: bool = False


@dataclass(frozen=True)
class Result:
    """A check with what it found and how long that took [s]."""

    check: Check
    finding: Finding
    seconds: float


CHECKS = (
    Check("kernel", "host", "a PREEMPT_RT kernel", host.kernel),
    Check("rtprio", "host", "real-time priorities for this user", host.rtprio),
    Check("memlock", "host", "memory that may be locked", host.memlock),
    Check("governor", "host", "CPUs at full clock", host.governor),
    Check("shared_memory", "host", "room in /dev/shm for images", host.shared_memory),
    Check("mixing", "ros", "one ROS 2, under the Python that it is built for", middleware.mixing),
    Check("messages", "ros", "e0_msgs is built", middleware.messages),
    Check("rmw", "ros", "the middleware", middleware.rmw),
    Check("discovery", "ros", "who finds whom", middleware.discovery),
    Check("arm_packages", "ros", "drivers of arm and cameras", middleware.arm_packages),
    Check("overruns", "arm", "overruns.manage is false", controllers.overruns),
    Check("replacement", "arm", "allow_trajectory_replacement is false", controllers.replacement),
    Check("franka_ros2", "arm", "franka_ros2 survives an error of the arm", controllers.franka_ros2),
    Check("firmware", "arm", "libfranka fits the arm's system image", controllers.firmware),
    Check("robot_link", "arm", "10,000 round trips to the arm at 1 kHz", network.robot_link, slow=True),
    Check("camera_speed", "usb", "all cameras on USB 3", usb.camera_speed),
    Check("camera_bandwidth", "usb", "the cameras fit into their links", usb.camera_bandwidth),
    Check("latency_timer", "usb", "the GELLO's adapter answers at once", usb.latency_timer),
    Check("clock", "time", "clocks of all hosts agree", network.clock),
    Check("streams", "time", "rates, gaps and skew of a running graph", streams.streams, slow=True),
    Check("disk", "resources", "minutes of recording", resources.disk),
    Check("gpu", "resources", "the GPU answers", resources.gpu),
    Check("checkpoint", "resources", "the checkpoint is whole and fits", resources.checkpoint),
    Check("vulkan", "resources", "ManiSkill can render", resources.vulkan),
)


def chosen(words: Iterable[str], measure: bool) -> tuple[Check, ...]:
    """The checks of the named checks and groups, or all; slow ones only when measuring or named themselves.

    Raises:
        ConfigError: no such check or group; the closest is named.

    """
    words = list(words)
    known = {check.name for check in CHECKS} | {check.group for check in CHECKS}
    if unknown := [word for word in words if word not in known]:
        raise ConfigError(f"no check {unknown[0]!r}{closest(unknown[0], known)}")
    named = [check for check in CHECKS if not words or check.name in words or check.group in words]
    return tuple(check for check in named if measure or not check.slow or check.name in words)


def examine(checks: Sequence[Check], machine: Machine, bench: Bench) -> list[Result]:
    """Run checks side by side, slow ones after the others and one at a time, because they measure."""
    quick = [check for check in checks if not check.slow]
    with ThreadPoolExecutor(max_workers=4) as pool:
        results = list(pool.map(lambda check: _look(check, machine, bench), quick))
    results += [_look(check, machine, bench) for check in checks if check.slow]
    return sorted(results, key=lambda result: CHECKS.index(result.check) if result.check in CHECKS else len(CHECKS))


def _look(check: Check, machine: Machine, bench: Bench) -> Result:
    begun = time.monotonic()
    try:
        finding = check.look(machine, bench)
    except Exception as error:  # a source of an unknown form must not hide what the others find
        finding = grey(f"the check failed: {type(error).__name__}: {error}", "please report this with `e0 env`")
    return Result(check, finding, time.monotonic() - begun)
