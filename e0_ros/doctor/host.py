"""Checks of the host's real-time abilities. Late 1 kHz replies are `communication_constraints_violation`."""

from __future__ import annotations

import re

from e0_ros.doctor.finding import Bench, Finding, green, grey, yellow
from e0_ros.doctor.machine import Machine

PRIORITY = 98
"""controller_manager's `thread_priority` in franka_bringup."""
LOCKED_BYTES = 102_400 * 1024
"""`memlock` that Franka's set-up page asks for."""
SHARED_BYTES = 256 * 1024 * 1024
"""32 MB per process of the graph (config/fastdds.xml), with room."""
_CAP_IPC_LOCK, _CAP_SYS_NICE = 14, 23
_LIMITS = (
    "sudo addgroup realtime; sudo usermod -aG realtime $USER; put into /etc/security/limits.conf "
    "`@realtime - rtprio 99`, `@realtime - priority 99`, `@realtime - memlock unlimited`; log in again "
    "(Docker: --cap-add=sys_nice --ulimit rtprio=99 --ulimit memlock=-1)"
)


def kernel(machine: Machine, bench: Bench) -> Finding:
    """PREEMPT_RT, which libfranka enforces by default."""
    version = machine.text("/proc/version")
    if version is None:
        return grey("/proc/version cannot be read")
    release = " ".join(version.split()[:3])
    if machine.text("/sys/kernel/realtime") == "1" or re.search(r"PREEMPT[_ ]RT", version):
        return green(f"{release}, PREEMPT_RT")
    cure = (
        "install a real-time kernel and boot it: Ubuntu `sudo pro enable realtime-kernel`, "
        "Debian `sudo apt-get install linux-image-rt-amd64` (franka_ros2#108: 6.8.0-rt8 cured it)"
    )
    return bench.fault(f"{release} is no PREEMPT_RT kernel", cure)


def rtprio(machine: Machine, bench: Bench) -> Finding:
    """Whether a thread may be given the controller manager's priority."""
    limit = _limit(machine, "Max realtime priority", _CAP_SYS_NICE)
    if limit is None:
        return grey("/proc/self/limits cannot be read")
    if limit >= PRIORITY:
        return green(f"real-time priorities up to {_words(limit)}")
    return bench.fault(f"real-time priorities up to {limit:.0f}; the controller manager takes {PRIORITY}", _LIMITS)


def memlock(machine: Machine, bench: Bench) -> Finding:
    """Whether memory may be locked, so that a control loop never waits for a page."""
    limit = _limit(machine, "Max locked memory", _CAP_IPC_LOCK)
    if limit is None:
        return grey("/proc/self/limits cannot be read")
    if limit >= LOCKED_BYTES:
        return green(f"memory to lock: {_words(limit / 2**20, ' MiB')}")
    return bench.fault(f"memory to lock: {limit / 2**20:.0f} MiB; {LOCKED_BYTES / 2**20:.0f} MiB are needed", _LIMITS)


def governor(machine: Machine, bench: Bench) -> Finding:
    """CPU frequency scaling, which adds latency when a clock has to rise first."""
    paths = machine.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    names = [name for path in paths if (name := machine.text(path.relative_to(machine.root)))]
    if not names:
        return grey("no CPU frequency scaling is visible (a virtual machine, or fixed in the firmware)")
    others = sorted({name for name in names if name != "performance"})
    if not others:
        return green(f"performance on all {len(names)} CPUs")
    slow = sum(name != "performance" for name in names)
    cure = (
        "sudo cpupower frequency-set -g performance; to keep it, GOVERNOR=performance in /etc/default/cpufrequtils "
        "(sudo apt-get install linux-tools-common cpufrequtils)"
    )
    return yellow(f"{', '.join(others)} on {slow} of {len(names)} CPUs", cure)


def shared_memory(machine: Machine, bench: Bench) -> Finding:
    """Room in /dev/shm: without it images go over UDP in fragments, and are late or lost."""
    free = machine.free(machine.path("/dev/shm"))
    if free is None:
        return grey("/dev/shm is not there")
    if free >= SHARED_BYTES:
        return green(f"{free / 2**20:.0f} MiB free in /dev/shm")
    cure = (
        "docker run --ipc=host or --shm-size=1g; else remove what killed processes left, and nothing of a graph that "
        "runs: `fastdds shm clean` (of the wheels: PATH=.venv/bin:$PATH)"
    )
    return yellow(f"{free / 2**20:.0f} MiB free in /dev/shm; {SHARED_BYTES / 2**20:.0f} MiB are needed", cure)


def _limit(machine: Machine, name: str, capability: int) -> float | None:
    """Soft limit of this process, infinite with the capability that lifts it; None if it cannot be read."""
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", machine.text("/proc/self/status") or "", re.MULTILINE)
    if effective and int(effective.group(1), 16) >> capability & 1:
        return float("inf")
    found = re.search(rf"^{name}\s+(\d+|unlimited)", machine.text("/proc/self/limits") or "", re.MULTILINE)
    if found is None:
        return None
    return float("inf") if found.group(1) == "unlimited" else float(found.group(1))


def _words(limit: float, unit: str = "") -> str:
    return "unlimited" if limit == float("inf") else f"{limit:.0f}{unit}"
