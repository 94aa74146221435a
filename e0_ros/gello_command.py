"""`e0 gello calibrate`, `show` and `baud`: make a leader arm's file, look at its joints, set its servos' baud rate."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from e0_policy.embodiment import Embodiment, load_embodiment
from e0_policy.files import check_writable, write_json, write_whole
from e0_policy.resources import config_dir
from e0_policy.types import FloatArray
from e0_ros.config import ConfigError
from e0_ros.core.gello_geometry import (
    BAUD_RATES,
    MAX_RESIDUAL_RAD,
    Calibration,
    calibration_text,
    fit_offsets,
    joints,
    load_calibration,
    nearest,
    opening,
    sign_of_turn,
    ticks_to_rad,
    turn_words,
)
from e0_ros.dynamixel import BusError, BusFault, LeaderBus, Sample

_READINGS = 50
_SHOWN_HZ = 10.0
_POSE = (0.0, 0.0, 0.0, -np.pi / 2, 0.0, np.pi / 2, 0.0)
_FACTORY_BAUD = 57600


class _MovedError(BusError):
    """The leader was to be held still."""


def calibrate(argv: Sequence[str] | None = None) -> int:
    """Write the file of a leader that is held in a known pose."""
    parser = argparse.ArgumentParser(
        prog="e0 gello calibrate",
        description="Hold the leader in a known pose, then turn each joint: the pose tells the offsets (the multiple "
        "of pi/2 that fits best), the turns tell the signs, which no such pose can.",
        epilog="example: e0 gello calibrate --port /dev/serial/by-id/usb-FTDI_... --out my_gello.yaml",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("--pose", type=float, nargs="+", default=_POSE, metavar="RAD",
                        help="joint positions in which it is held (default: 0 0 0 -1.57 0 1.57 0)")  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="ask nothing: it is held so, and the trigger is let go")
    parser.add_argument("--signs", type=float, nargs="+", metavar="1|-1",
                        help="known signs: no joint is to be turned (with --yes: default the file's)")  # fmt: skip
    parser.add_argument("--trigger-rad", type=float, default=-0.7, metavar="RAD",
                        help="with --yes: what squeezing changes the trigger's reading by (default: -0.7)")  # fmt: skip
    parser.add_argument("--embodiment", default="fr3", help="follower (default: fr3)")
    _common(parser)
    options = parser.parse_args(argv)
    try:
        check_writable(options.out)
    except OSError as error:
        raise ConfigError(f"--out: {error}") from None
    return _with_leader(options, lambda bus, leader: _calibrate(bus, leader, options))


def _calibrate(bus: LeaderBus, leader: Calibration, options: argparse.Namespace) -> int:
    pose, n = np.array(options.pose), len(leader.joint_ids)
    if len(pose) != n:
        raise ConfigError(f"--pose has {len(pose)} positions; the leader has {n} joints")
    _ask(options.yes, f"Hold the leader at {np.round(pose, 3).tolist()} rad, let go of the trigger, press Enter")
    leader = replace(leader, signs=tuple(options.signs or leader.signs))
    raw, seen = _average(bus), not (options.yes or options.signs)
    if seen:
        leader = replace(leader, signs=_turned(bus, leader, raw[:n], pose, load_embodiment(options.embodiment)))
    offsets, residual = fit_offsets(raw[:n], pose, np.array(leader.signs))
    found = replace(leader, port=options.port or leader.port, offsets_rad=tuple(map(float, offsets)))
    if leader.gripper_id:
        _ask(options.yes, "Squeeze the trigger all the way, press Enter")
        closed = raw[-1] + options.trigger_rad if options.yes else float(nearest(_average(bus)[-1:], raw[-1])[0])
        found = replace(found, gripper_open_rad=float(raw[-1]), gripper_closed_rad=float(closed))
    for i, (offset, rest) in enumerate(zip(offsets, residual, strict=True), 1):
        print(
            f"  joint {i}: offset {offset:.4f} rad ({offset / (np.pi / 2):.0f} x pi/2), {rest:+.3f} rad from the pose"
        )
    far = [i for i in range(n) if abs(residual[i]) > MAX_RESIDUAL_RAD]
    if far:
        named = ", ".join(f"joint {i + 1} ({residual[i]:+.2f} rad)" for i in far)
        print(f"e0 gello calibrate: not written: {named} is not at the pose; hold it there, or is a sign wrong?",
              file=sys.stderr)  # fmt: skip
        return 1
    write_whole(options.out, calibration_text(found))
    print(f"written to {options.out}; look at it with: e0 gello show --calibration {options.out}")
    if not seen:
        print("the signs were not seen: a wrong one fits this pose too, so turn each joint and look")
    _to_json(options, {"offsets_rad": offsets.tolist(), "residual_rad": residual.tolist(), "file": str(options.out),
                       "signs": list(found.signs), "signs_seen": seen})  # fmt: skip
    return 0


def _turned(
    bus: LeaderBus, leader: Calibration, raw_rad: FloatArray, pose: FloatArray, arm: Embodiment
) -> tuple[float, ...]:
    """The sign of every joint, by turning one after the other."""
    print("Now turn one joint at a time; front is where the arm reaches. Let it stay where it is then.")
    signs, known = list[float](), arm.has_kinematics and len(pose) == arm.joints
    while (i := len(signs)) < len(pose):
        way = turn_words(pose, i) if known else "in its positive direction"
        _ask(False, f"Turn joint {i + 1} by about 0.3 rad {way}, hold it still, press Enter")
        try:
            now_rad = _average(bus)[: len(pose)]
        except _MovedError as error:
            print(f"  {error}")
            continue
        found, by_rad = sign_of_turn(raw_rad, now_rad, i), nearest(now_rad, raw_rad)[i] - raw_rad[i]
        if isinstance(found, str):
            print(f"  {found}")
            continue
        was = "" if found == leader.signs[i] else f", not {leader.signs[i]:+.0f} as it was"
        print(f"  joint {i + 1}: servo {leader.joint_ids[i]} went by {by_rad:+.2f} rad: sign {found:+.0f}{was}")
        signs.append(found)
        raw_rad = now_rad
    return tuple(signs)


def baud(argv: Sequence[str] | None = None) -> int:
    """Set the servos' baud rate."""
    parser = argparse.ArgumentParser(
        prog="e0 gello baud",
        description="Set the baud rate of all servos, in their EEPROM, and see that they answer at it. They leave "
        f"the factory at {_FACTORY_BAUD}, too slow for 100 readings a second. One that has it already is left.",
        epilog="example: e0 gello baud --port /dev/serial/by-id/usb-FTDI_... --to 1000000",
    )
    parser.add_argument("--to", type=int, required=True, choices=BAUD_RATES, help="new baud rate")
    _common(parser)
    options = parser.parse_args(argv)
    leader = load_calibration(options.calibration)
    port, now = options.port or leader.port, options.baud_rate or _FACTORY_BAUD
    try:
        left = [servo for servo in leader.ids if now != options.to and not _answers(port, options.to, servo)]
        if left:
            bus = LeaderBus(port, now, left)
            try:
                bus.write_baud_rate(options.to)
            finally:
                bus.close()
        LeaderBus(port, options.to, leader.ids).close()
    except BusError as error:
        print(f"e0 gello: {error}", file=sys.stderr)
        return 1
    print(f"servos {', '.join(map(str, leader.ids))} answer at {options.to} baud ({len(left)} were told); baud_rate of "
          f"the leader's file must say so, as `e0 gello calibrate --baud-rate {options.to}` writes it")  # fmt: skip
    _to_json(options, {"baud_rate": options.to, "told": left})
    return 0


def _answers(port: str, baud_rate: int, servo: int) -> bool:
    try:
        LeaderBus(port, baud_rate, (servo,)).close()
    except BusError:
        return False
    return True


def show(argv: Sequence[str] | None = None) -> int:
    """Print the leader's joints."""
    parser = argparse.ArgumentParser(
        prog="e0 gello show",
        description="Live joints of the leader, counted from the turn nearest to the arm's home.",
        epilog="example: e0 gello show --calibration my_gello.yaml",
    )
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), metavar="S", help="for so long (default: Ctrl-C)"
    )
    parser.add_argument("--embodiment", default="fr3", help="follower (default: fr3)")
    _common(parser)
    options = parser.parse_args(argv)
    return _with_leader(options, lambda bus, leader: _show(bus, leader, options))


def _show(bus: LeaderBus, leader: Calibration, options: argparse.Namespace) -> int:
    arm, began_s, shown_s, good, bad = load_embodiment(options.embodiment), time.monotonic(), 0.0, 0, 0
    q, asked = np.full(arm.joints, np.nan), float("nan")
    try:
        while time.monotonic() - began_s < options.seconds:
            result = bus.read(time.monotonic_ns)
            if isinstance(result, Sample):
                good, raw = good + 1, ticks_to_rad(result.ticks)
                q, asked = nearest(joints(leader, raw), arm.home), opening(leader, raw)
            else:
                bad += 1
                print(f"\n{result.reason}", file=sys.stderr)
                if result.lost:
                    return 1
            if time.monotonic() - shown_s > 1 / _SHOWN_HZ:
                shown_s = time.monotonic()
                print("\r" + _line(q, asked, arm, good / (shown_s - began_s), bad), end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()
    rate_hz = good / (time.monotonic() - began_s)
    _to_json(options, {"joints_rad": q.tolist(), "opening": asked, "rate_hz": rate_hz, "good": good, "failed": bad})
    return 0 if good else 1


def _line(q: FloatArray, asked: float, arm: Embodiment, rate_hz: float, bad: int) -> str:
    limits = zip(q, arm.position_lower, arm.position_upper, strict=True)
    shown = " ".join(f"{x:+6.3f}{' ' if low <= x <= high else '!'}" for x, low, high in limits)
    return f"{shown} rad  gripper {asked:4.2f}  {rate_hz:4.0f} readings/s  {bad} failed"


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calibration", type=Path, default=config_dir() / "gello.yaml", metavar="FILE",
                        help="the leader's file (default: the shipped one)")  # fmt: skip
    parser.add_argument("--port", default="", help="serial port (default: the file's)")
    rates = ", ".join(map(str, BAUD_RATES))
    parser.add_argument("--baud-rate", type=int, default=0, metavar="BAUD",
                        help=f"of the servos now: {rates} (default: the file's; baud: {_FACTORY_BAUD})")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")


def _with_leader(options: argparse.Namespace, act: Callable[[LeaderBus, Calibration], int]) -> int:
    leader = load_calibration(options.calibration)
    leader = replace(leader, port=options.port or leader.port, baud_rate=options.baud_rate or leader.baud_rate)
    try:
        bus = LeaderBus(leader.port, leader.baud_rate, leader.ids)
        try:
            return act(bus, leader)
        finally:
            bus.close()
    except BusError as error:
        print(f"e0 gello: {error}", file=sys.stderr)
        return 1


def _average(bus: LeaderBus) -> FloatArray:
    """Mean of some readings [rad].

    Raises:
        BusError: a reading failed; _MovedError: the leader moved meanwhile.

    """
    readings = []
    for _ in range(_READINGS):
        result = bus.read(time.monotonic_ns)
        if isinstance(result, BusFault):
            raise BusError(result.reason)
        readings.append(ticks_to_rad(result.ticks))
    spread = np.ptp(readings, axis=0)
    if spread.max() > 0.03:
        raise _MovedError(
            f"servo {bus.ids[int(spread.argmax())]} moved by {spread.max():.3f} rad meanwhile; hold it still"
        )
    mean: FloatArray = np.mean(readings, axis=0)
    return mean


def _ask(yes: bool, text: str) -> None:
    if yes:
        return
    try:
        input(text + " ")
    except EOFError:
        raise ConfigError("there is nobody to ask; --yes asks nothing") from None


def _to_json(options: argparse.Namespace, figures: dict[str, object]) -> None:
    if options.json:
        write_json(options.json, figures)
