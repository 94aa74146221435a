"""`e0 calibrate latency`, `camera`, `view` and `board`: measure a bench, from a recorded take or one that they make."""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from e0_policy.embodiment import Embodiment, load_embodiment
from e0_policy.files import check_writable, write_json
from e0_policy.types import WRIST_VIEWS, ImageArray
from e0_ros import interfaces
from e0_ros.config import ConfigError, add_arguments, from_arguments
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.bench_calibration import CameraPlace, updated, write_bench
from e0_ros.core.calibration_bag import commanded, first_images, image_changes, measured, optics, sightings
from e0_ros.core.charuco import Board, BoardConfig
from e0_ros.core.hand_eye import HandEye, HandEyeError, solve_hand_eye
from e0_ros.core.inspection_images import camera_views
from e0_ros.core.latency_calibration import Latency, MotionError, arm_latency, image_latency
from e0_ros.core.view_check import ViewShift, overlay, view_shift
from e0_ros.signals import on_signals

_OUT = Path("bench.yaml")


def latency(argv: Sequence[str] | None = None) -> int:
    """Measure how late images and the arm are."""
    parser = _parser(
        "latency",
        "How late every camera's images are stamped, and how long the arm takes to follow: of one motion, seen by "
        "cameras, encoders and executor. Without --bag the arm waves for 12 s where it stands; nothing else may move.",
        "e0 calibrate latency --out bench.yaml",
    )
    parser.add_argument("--bag", type=Path, help="a take with motion, of a leader for example; else one is made now")
    return _run("latency", parser, argv, _latency)


def camera(argv: Sequence[str] | None = None) -> int:
    """Find out where a camera is."""
    parser = _parser(
        "camera",
        "Where a camera is, from a take in which the arm stood at 15 or so poses, the hand turned every way, with a "
        "ChArUco board in view: on the table for a camera on the flange, fixed to the hand for a camera that stands.",
        "e0 calibrate camera --bag bags/board --view wrist --parent flange --square-m 0.0301 --out bench.yaml",
    )
    parser.add_argument("--bag", type=Path, required=True, help="the take")
    parser.add_argument("--view", required=True, help="the camera's view")
    parser.add_argument("--parent", required=True, choices=("base", "flange"), help="what the camera is fixed to")
    add_arguments(parser, BoardConfig)
    return _run("camera", parser, argv, _camera)


def view(argv: Sequence[str] | None = None) -> int:
    """Tell whether cameras stand where they stood."""
    parser = _parser(
        "view",
        "Have the fixed cameras moved since a take was recorded? Lays its first pictures over those of now (of a "
        "running graph, or of another take): red was, cyan is. Exit status 1: one has moved.",
        "e0 calibrate view --reference bags/first --out overlays",
        out=Path(),
    )
    parser.add_argument("--reference", type=Path, required=True, metavar="BAG", help="the take to compare with")
    parser.add_argument("--bag", type=Path, help="another take; else the graph that is running")
    parser.add_argument("--views", nargs="*", default=[], help="views to compare (default: all but wrist)")
    return _run("view", parser, argv, _view)


def board(argv: Sequence[str] | None = None) -> int:
    """Draw the board to print."""
    parser = _parser(
        "board",
        "The ChArUco board as an SVG in its true size: print it at 100 %, glue it to a flat plate, measure a square.",
        "e0 calibrate board --out board.svg",
        out=Path("board.svg"),
    )
    add_arguments(parser, BoardConfig)
    return _run("board", parser, argv, _board)


def _parser(verb: str, text: str, example: str, out: Path = _OUT) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"e0 calibrate {verb}", description=text, epilog=f"example: {example}")
    parser.add_argument("--out", type=Path, default=out, help=f"what is written or added to (default: {out})")
    parser.add_argument("--embodiment", default="fr3", help="the arm (default: fr3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    return parser


def _run(
    verb: str,
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    work: Callable[[argparse.Namespace, Embodiment], tuple[int, dict[str, Any]]],
) -> int:
    options = parser.parse_args(argv)
    try:
        status, figures = work(options, load_embodiment(options.embodiment))
    except (BagReadError, MotionError, HandEyeError, ConfigError, OSError, RuntimeError) as error:
        print(f"e0 calibrate {verb}: {error}", file=sys.stderr)
        return 1
    if options.json:
        write_json(options.json, figures)
    return status


def _latency(options: argparse.Namespace, arm: Embodiment) -> tuple[int, dict[str, Any]]:
    check_writable(options.out)
    updated(options.out)  # a file that is wrong is told before the arm moves
    bag = Bag(options.bag or _waved())
    joints, found = measured(bag, arm), dict[str, Latency]()
    trouble: list[str] = []
    told = commanded(bag, arm)
    found["arm"] = arm_latency(joints.times_ns, joints.positions, told.times_ns, told.positions)
    for name, _ in camera_views(bag):
        try:
            found[name] = image_latency(*image_changes(bag, name), joints.times_ns, joints.positions)
        except MotionError as error:
            trouble.append(f"{name}: {error}")
    for name, of in found.items():
        what = "follows its reference after" if name == "arm" else "is stamped late by"
        print(f"{name:<8} {what} {of.ms:6.1f} ms  +- {of.spread_ms:.1f} ms, agreement {of.agreement:.3f}")
    views = {name: of.ms for name, of in found.items() if name != "arm"}
    write_bench(options.out, updated(options.out, arm_lag_ms=max(found["arm"].ms, 0.0), camera_latency_ms=views))
    print(f"written to {options.out}; used with calibration:={options.out}")
    for line in trouble:
        print(f"e0 calibrate latency: not measured: {line}", file=sys.stderr)
    return int(bool(trouble)), {name: vars(of) for name, of in found.items()}


def _waved() -> Path:
    """The bag of a take in which the arm waves; who leaves meanwhile stops the arm."""
    from e0_ros.graph_client import GraphClient

    client = GraphClient()

    def leave(*_: object) -> None:
        client.leaving = True

    try:
        client.wait_for(interfaces.WAVE, interfaces.START_EPISODE)
        print("the arm waves for 12 s: keep away from it, and everything else still", flush=True)
        with on_signals(leave):
            client.call(interfaces.START_EPISODE, task="calibrate latency")
            try:
                client.bring(interfaces.WAVE)
            finally:
                reply = client.call(interfaces.END_EPISODE, outcome="unlabelled", note="calibration of latencies")
    finally:
        client.close()
    if not reply.bag:
        raise ConfigError("the graph records nothing (record:=false); a bag is needed")
    return Path(reply.bag)


def _camera(options: argparse.Namespace, arm: Embodiment) -> tuple[int, dict[str, Any]]:
    check_writable(options.out)
    bag, target = Bag(options.bag), Board(from_arguments(BoardConfig, options))
    intrinsics, distortion = optics(bag, options.view)
    seen, poses = sightings(bag, options.view, arm, target)
    print(f"the arm stood at {poses} poses; the board is seen at {len(seen)}")
    found: HandEye = solve_hand_eye(seen, intrinsics, distortion, options.parent)
    x, y, z = found.pose[:3, 3]
    print(f"{options.view} on the {options.parent}: {x:.4f} {y:.4f} {z:.4f} m, from {found.used} pictures")
    print(
        f"left: {found.error_px:.2f} px; one sigma {1e3 * found.sigma_m:.1f} mm, {np.degrees(found.sigma_rad):.2f} deg"
    )
    place = CameraPlace(options.parent, found.pose, found.error_px)
    write_bench(options.out, updated(options.out, cameras={options.view: place}))
    print(f"written to {options.out}; used with calibration:={options.out}")
    figures = {"pose": found.pose.tolist(), "error_px": found.error_px, "sigma_m": found.sigma_m}
    return 0, {**figures, "sigma_rad": found.sigma_rad, "used": found.used, "poses": poses}


def _view(options: argparse.Namespace, _: Embodiment) -> tuple[int, dict[str, Any]]:
    before = first_images(Bag(options.reference))
    wanted = options.views or [name for name in before if name not in WRIST_VIEWS]
    now = first_images(Bag(options.bag)) if options.bag else seen_now(wanted)
    shifts = compare_views({name: before[name] for name in wanted if name in before}, now, options.out)
    if not shifts:
        raise ConfigError(f"no view of {', '.join(wanted) or 'none'} is in both; the take has {', '.join(before)}")
    moved = any(shift.moved or not np.isfinite(shift.shift_px) for shift in shifts.values())
    return int(moved), {name: {**vars(shift), "moved": shift.moved} for name, shift in shifts.items()}


def compare_views(
    before: Mapping[str, ImageArray], now: Mapping[str, ImageArray], folder: Path
) -> dict[str, ViewShift]:
    """Compare views, say how far each has moved, and write the overlays."""
    shifts = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name in (name for name in before if name in now):
        shifts[name] = view_shift(before[name], now[name])
        path = folder / f"view_{name}.png"
        cv2.imwrite(str(path), overlay(before[name], now[name])[..., ::-1])
        print(f"{name:<8} {shifts[name].words()}; {path}")
    return shifts


def seen_now(views: Sequence[str], timeout_s: float = 10.0) -> dict[str, ImageArray]:
    """One picture of each view of the graph that is running; those that send none are left out."""
    from e0_ros.picture import pictures

    return pictures(views, timeout_s)


def _board(options: argparse.Namespace, _: Embodiment) -> tuple[int, dict[str, Any]]:
    drawn = Board(from_arguments(BoardConfig, options))
    width, height = (1e3 * side for side in drawn.size_m)
    data = base64.b64encode(cv2.imencode(".png", drawn.picture())[1].tobytes()).decode()
    options.out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 20:g}mm" height="{height + 20:g}mm" '
        f'viewBox="-10 -10 {width + 20:g} {height + 20:g}"><rect x="-10" y="-10" width="{width + 20:g}" '
        f'height="{height + 20:g}" fill="white"/><image width="{width:g}" height="{height:g}" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/></svg>\n',
        encoding="utf-8",
    )
    print(f"{options.out}: {width:g} x {height:g} mm; print it at 100 % and measure a square")
    return 0, {"width_mm": width, "height_mm": height}
