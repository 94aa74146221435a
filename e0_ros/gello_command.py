"""`e0 gello calibrate` and `e0 gello show`: make a leader arm's file, and look at its joints."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from e0_policy.embodiment import Embodiment, load_embodiment
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
    ticks_to_rad,
)
from e0_ros.dynamixel import BusError, BusFault, LeaderBus, Sample
from e0_ros.json_file import write_json

_READINGS = 50
_SHOWN_HZ = 10.0
_POSE = (0.0, 0.0, 0.0, -np.pi / 2, 0.0, np.pi / 2, 0.0)


def calibrate(argv: Sequence[str] | None = None) -> int:
    """Write the file of a leader that is held in a known pose."""
    parser = argparse.ArgumentParser(
        prog="e0 gello calibrate",
        description="Hold the leader in a known pose; each offset is the multiple of pi/2 that fits it best.",
        epilog="example: e0 gello calibrate --port /dev/serial/by-id/usb-FTDI_... --out my_gello.yaml",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("--pose", type=float, nargs="+", default=_POSE, metavar="RAD",
                        help="joint positions in which it is held (default: 0 0 0 -1.57 0 1.57 0)")  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="ask nothing: it is held so, and the trigger is let go")
    parser.add_argument("--trigger-rad", type=float, default=-0.7, metavar="RAD",
                        help="with --yes: what squeezing changes the trigger's reading by (default: -0.7)")  # fmt: skip
    _common(parser)
    options = parser.parse_args(argv)
    return _with_leader(options, lambda bus, leader: _calibrate(bus, leader, options))


def _calibrate(bus: LeaderBus, leader: Calibration, options: argparse.Namespace) -> int:
    pose, n = np.array(options.pose), len(leader.joint_ids)
    if len(pose) != n:
        raise ConfigError(f"--pose has {len(pose)} positions; the leader has {n} joints")
    _ask(options.yes, f"Hold the leader at {np.round(pose, 3).tolist()} rad, let go of the trigger, press Enter")
    raw = _average(bus)
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
    options.out.with_suffix(".part").write_text(calibration_text(found), encoding="utf-8")
    options.out.with_suffix(".part").replace(options.out)
    print(f"written to {options.out}; look at it with: e0 gello show --calibration {options.out}")
    _to_json(options, {"offsets_rad": offsets.tolist(), "residual_rad": residual.tolist(), "file": str(options.out)})
    return 0


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
    parser.add_argument("--baud-rate", type=int, default=0, metavar="BAUD",
                        help=f"of the servos, {', '.join(map(str, BAUD_RATES))} (default: the file's)")  # fmt: skip
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
        BusError: a reading failed, or the leader moved meanwhile.

    """
    readings = []
    for _ in range(_READINGS):
        result = bus.read(time.monotonic_ns)
        if isinstance(result, BusFault):
            raise BusError(result.reason)
        readings.append(ticks_to_rad(result.ticks))
    spread = np.ptp(readings, axis=0)
    if spread.max() > 0.03:
        raise BusError(
            f"servo {bus.ids[int(spread.argmax())]} moved by {spread.max():.3f} rad meanwhile; hold it still"
        )
    mean: FloatArray = np.mean(readings, axis=0)
    return mean


def _ask(yes: bool, text: str) -> None:
    if not yes:
        input(text + " ")


def _to_json(options: argparse.Namespace, figures: dict[str, object]) -> None:
    if options.json:
        write_json(options.json, figures)
