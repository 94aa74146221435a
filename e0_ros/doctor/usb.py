"""Checks of what hangs on USB, from sysfs: the cameras' links and the GELLO adapter's latency."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from e0_ros.doctor.finding import Bench, Finding, green, grey, red, yellow
from e0_ros.doctor.machine import Machine

DEVICES = "sys/bus/usb/devices"
INTEL = "8086"
SUPER_SPEED = 5000.0
"""USB 3 [Mbit/s]."""
USABLE = 0.64
"""Share of the line rate that bulk or isochronous data reach: 8b/10b coding, then a fifth for protocol."""
BITS = 16
"""Bits of a pixel on the wire: colour as YUYV, depth as Z16."""


@dataclass(frozen=True)
class Camera:
    """A RealSense camera: its model, link speed [Mbit/s] and bus."""

    model: str
    speed: float
    bus: str


def cameras(machine: Machine) -> list[Camera] | None:
    """RealSense cameras on USB; None if USB cannot be seen."""
    if not machine.path(DEVICES).is_dir():
        return None
    found = []
    for path in machine.glob(f"{DEVICES}/*/idVendor"):
        device = f"{DEVICES}/{path.parent.name}"
        model = machine.text(f"{device}/product") or ""
        if machine.text(path.relative_to(machine.root)) == INTEL and "RealSense" in model:
            speed = float(machine.text(f"{device}/speed") or 0)
            found.append(Camera(model, speed, machine.text(f"{device}/busnum") or "?"))
    return found


def camera_speed(machine: Machine, bench: Bench) -> Finding:
    """Every camera is there, on a USB 3 link."""
    found = cameras(machine)
    if found is None:
        return grey("USB is not visible here (a container without /sys/bus/usb?)")
    if not found and not bench.robot_ip:
        return grey("no RealSense camera on USB", "--robot-ip ADDRESS: this host drives the arm and needs them")
    slow = [camera for camera in found if camera.speed < SUPER_SPEED]
    if slow:
        cure = "plug it into a USB 3 port with a USB 3 cable, firmly, without a hub; try the plug the other way up"
        return red(f"{len(slow)} of {len(found)} cameras at {slow[0].speed:.0f} Mbit/s (USB 2): {slow[0].model}", cure)
    if len(found) < len(bench.views):
        cure = "check plug, cable and power; `rs-enumerate-devices -s` lists what librealsense sees"
        return bench.fault(f"{len(found)} RealSense cameras for the views {', '.join(bench.views)}", cure)
    return green(f"{len(found)} cameras at {min(camera.speed for camera in found):.0f} Mbit/s or more")


def camera_bandwidth(machine: Machine, bench: Bench) -> Finding:
    """The cameras of one controller together fit into its link."""
    found = cameras(machine)
    if not found:
        return grey("no RealSense camera on USB")
    width, height, rate = bench.profile()
    each = width * height * rate * BITS * (2 if bench.depth else 1) / 1e6
    buses: dict[str, list[Camera]] = defaultdict(list)
    for camera in found:
        buses[camera.bus].append(camera)
    words, worst = [], ""
    for bus, users in sorted(buses.items()):
        link = float(machine.text(f"{DEVICES}/usb{bus}/speed") or min(camera.speed for camera in users))
        words.append(f"bus {bus}: {len(users)} x {each:.0f} of {USABLE * link:.0f} Mbit/s")
        if len(users) * each > USABLE * link:
            worst = words[-1]
    if worst:
        cure = "give each camera a USB controller of its own (`lsusb -t`), or take 640x480x30 without depth"
        return red(f"too much for one link, {worst} (realsense-ros#3494)", cure)
    return green("; ".join(words))


def latency_timer(machine: Machine, bench: Bench) -> Finding:
    """The FTDI adapter of the GELLO hands over every byte at once; its default of 16 ms allows 60 reads a second."""
    timers = machine.glob("/sys/bus/usb-serial/devices/*/latency_timer")
    if not timers and bench.gello and machine.path(DEVICES).is_dir():
        cure = "plug in the leader arm's U2D2 or FTDI adapter; `dmesg | grep ttyUSB` names it"
        return red("no FTDI serial adapter on USB", cure)
    values = {p.parent.name: machine.text(p.relative_to(machine.root)) or "" for p in timers}
    if not any(value.isdigit() for value in values.values()):
        return grey("no FTDI serial adapter on USB", "--gello: one is expected")
    slow = {name: value for name, value in values.items() if value.isdigit() and int(value) > 1}
    if not slow:
        return green(f"1 ms at {', '.join(values)}")
    name, value = next(iter(slow.items()))
    rule = 'ACTION=="add", SUBSYSTEM=="usb-serial", DRIVER=="ftdi_sio", ATTR{latency_timer}="1"'
    cure = (
        f"echo 1 | sudo tee /sys/bus/usb-serial/devices/{name}/latency_timer; to keep it, put "
        f"`{rule}` into /etc/udev/rules.d/99-gello.rules"
    )
    seen = f"{value} ms at {name}: at most {1000 // int(value)} reads a second"
    return red(seen, cure) if bench.gello else yellow(seen, cure)
