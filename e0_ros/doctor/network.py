"""Checks of clocks and of the link to the arm."""

from __future__ import annotations

import re

from e0_ros.core.pairing import JOINTS
from e0_ros.doctor.finding import Bench, Finding, green, grey, red, yellow
from e0_ros.doctor.machine import Machine

OFFSET_MS = 5.0
"""A quarter of the skew that two views at 30 Hz may have (`SyncConfig.tolerance_ns`)."""
PACKETS = 10_000
PACKET_BYTES = 1200
_PING = ("ping", "-q", "-n", "-i", "0.001", "-c", str(PACKETS), "-s", str(PACKET_BYTES), "-w", "30")
_FORBIDDEN = "permitted|minimal interval|privilege|superuser|denied"
HEAR_S = 2.0
"""How long joint states are listened for, which tell that an arm is driven."""
MEAN_MS, WORST_MS = 0.5, 1.0
"""A round trip must leave the control loop its half of the millisecond. Franka's own good example: 0.24, worst 0.50."""


def clock(machine: Machine, bench: Bench) -> Finding:
    """This host's clock follows one that the other hosts follow too: stamps of two hosts are compared."""
    hosts = " and ".join(("this host", *bench.peers))
    cure = (
        f"on {hosts}: sudo apt-get install chrony; on all but one, "
        "`server <that one> iburst minpoll 0 maxpoll 2` in /etc/chrony/chrony.conf"
    )
    tracking = machine.run("chronyc", "-n", "tracking", timeout_s=2.0)
    if tracking is not None and tracking.status == 0:
        offset = re.search(r"^System time\s*:\s*([\d.]+) seconds", tracking.out, re.MULTILINE)
        if offset and re.search(r"^Leap status\s*:\s*Normal", tracking.out, re.MULTILINE):
            away_ms = float(offset.group(1)) * 1e3
            seen = f"chrony: {away_ms:.3f} ms from its source"
            if away_ms > OFFSET_MS:
                return _unsynchronised(bench, seen, "sudo chronyc makestep")
            if not bench.peers:
                return green(seen)
            others = " and ".join(bench.peers)
            return grey(f"{seen}; {others} cannot be seen from here", f"`e0 doctor --only clock` on {others} too")
        return _unsynchronised(bench, "chrony has no source yet", cure)
    answer = machine.run("timedatectl", "show", "-p", "NTPSynchronized", "--value", timeout_s=2.0)
    if answer is None or answer.status != 0 or answer.out.strip() not in ("yes", "no"):
        return grey("neither chronyc nor timedatectl answers", cure if bench.peers else "")
    if answer.out.strip() == "no":
        return _unsynchronised(bench, "the clock is not synchronised", cure)
    if bench.peers:
        return yellow("synchronised by systemd-timesyncd, which may be some ms off", cure)
    return green("synchronised (timedatectl)")


def _unsynchronised(bench: Bench, seen: str, cure: str) -> Finding:
    if bench.peers:
        return red(f"{seen}; stamps of {', '.join(bench.peers)} are compared with this clock", cure)
    return yellow(f"{seen} (matters as soon as a second host takes part)", cure)


def robot_link(machine: Machine, bench: Bench) -> Finding:
    """Round trips to the arm at 1 kHz, as Franka's network test makes them (10 s). Not while the arm is driven.

    Its own 1 kHz loop goes over the same link: either would be late for the other.
    """
    if not bench.robot_ip:
        return grey("no arm was named", "--robot-ip ADDRESS")
    heard = machine.listen(bench.streams(), HEAR_S)
    if heard and len(heard.streams[JOINTS].stamps_ns):
        again = f"stop the graph and the arm's driver, then `e0 doctor --only robot_link --robot-ip {bench.robot_ip}`"
        return grey("not while an arm is driven (joint states are heard): its control loop would be disturbed", again)
    command = (*_PING, bench.robot_ip)
    answer = machine.run(*command, timeout_s=40.0)
    if answer is None:
        return grey("ping is not installed, or did not end", "sudo apt-get install iputils-ping")
    sent = re.search(r"(\d+) packets transmitted, (\d+) (?:packets )?received", answer.out)
    if sent is None and re.search(_FORBIDDEN, answer.err + answer.out, re.IGNORECASE):
        same = f"or as root `e0 doctor --only robot_link --robot-ip {bench.robot_ip}`"
        return grey("an interval of 1 ms needs privileges", f"sudo {' '.join(command)}, {same}")
    if sent is None:
        cure = "check address, cable and the arm's power: `ping " + bench.robot_ip + "`"
        return red(f"ping: {(answer.err or answer.out).strip()[:100] or 'no answer'}", cure)
    times = re.search(r"= [\d.]+/([\d.]+)/([\d.]+)", answer.out)
    lost = int(sent.group(1)) - int(sent.group(2))
    if times is None:
        cure = "check address, subnet, cable and power; the port is the control unit's LAN, not the arm's base"
        return red(f"{bench.robot_ip} does not answer", cure)
    mean_ms, worst_ms = float(times.group(1)), float(times.group(2))
    seen = f"{sent.group(1)} round trips: mean {mean_ms:.2f} ms, worst {worst_ms:.2f} ms, {lost} lost"
    cure = (
        "cable from the control unit straight into a network card of this host, no switch, no USB adapter; "
        "sudo ethtool -C <interface> rx-usecs 0; a real-time kernel; governor performance"
    )
    if lost or mean_ms > MEAN_MS or worst_ms > WORST_MS:
        return red(f"{seen}; allowed are {MEAN_MS}, {WORST_MS} and 0", cure)
    return green(seen)
