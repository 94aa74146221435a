"""A predicted chunk drawn over camera images: the tool's path, its colour the policy's own doubt about each row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.kinematics import flange_pose, tcp_position_m
from e0_policy.types import FloatArray, ImageArray, Representation
from e0_ros.core.camera_model import CameraModel

PLAIN = (255, 210, 60)
PAST = (150, 150, 150)
_SMOOTH = 4
"""Binary digits of a pixel's fraction in which lines are drawn."""


@dataclass(frozen=True)
class Plan:
    """A chunk as a path in the base frame: `times_ns` `(n,)`, `points_m` `(n, 3)`, `uncertainty` `(n,)` [nats]."""

    times_ns: FloatArray
    points_m: FloatArray
    uncertainty: FloatArray | None


def plan_of(chunk: Any, arm: Embodiment) -> Plan | None:
    """The path of a decoded ActionChunk; None if it has no plan, or none that can be placed."""
    if chunk.status != 0 or not chunk.rows or len(chunk.data) != chunk.rows * chunk.columns:
        return None
    rows = np.array(chunk.data, np.float64).reshape(chunk.rows, chunk.columns)
    if not np.isfinite(rows).all() or chunk.period_ns <= 0:
        return None
    if chunk.representation == Representation.JOINT_POSITION:
        if tuple(chunk.joint_names) != arm.joint_names or not arm.has_kinematics or chunk.columns < 7:
            return None
        points = tcp_position_m(rows[:, :7])
    elif chunk.representation == Representation.EE_POSE and chunk.columns >= 3:
        points = rows[:, :3]
    else:
        return None
    start = int(chunk.t0.sec) * 10**9 + int(chunk.t0.nanosec)
    doubt = np.array(chunk.uncertainty, np.float64) if len(chunk.uncertainty) == chunk.rows else None
    return Plan(start + np.arange(chunk.rows) * float(chunk.period_ns), points, doubt)


def scale_nats(chunks: Iterable[Any]) -> float:
    """Doubt that is shown as the scale's end: what 95 % of all rows stay below; 0 if no chunk tells its doubt."""
    known = [np.array(c.uncertainty, np.float64) for c in chunks if len(c.uncertainty)]
    values = np.concatenate(known) if known else np.empty(0)
    values = values[np.isfinite(values)]
    return float(np.percentile(values, 95)) if len(values) else 0.0


def flange_at(joint_state: Any, arm: Embodiment) -> FloatArray | None:
    """`T_base_flange` of a decoded JointState; None if it names other joints."""
    places = {name: i for i, name in enumerate(joint_state.name)}
    if not arm.has_kinematics or not all(name in places for name in arm.joint_names):
        return None
    positions = np.asarray(joint_state.position, np.float64)
    if len(positions) != len(places):
        return None
    return flange_pose(positions[[places[name] for name in arm.joint_names]])


def draw_plan(
    panel: ImageArray,
    plan: Plan,
    camera: CameraModel,
    now_ns: int,
    scale: float,
    pose_base_flange: FloatArray | None = None,
) -> None:
    """Draw a plan into `panel`, which shows the camera's image fitted in and centred, as `resize_with_pad` does.

    Rows before `now_ns` are grey, later ones coloured from blue (sure) to red (`scale` nats and above).
    """
    if camera.parent == "flange" and pose_base_flange is None:
        return
    pixels = _on_panel(camera.project(plan.points_m, pose_base_flange), camera, panel)
    colours = _colours(plan, now_ns, scale)
    for i in range(len(pixels) - 1):
        a, b = pixels[i], pixels[i + 1]
        if _near(a, panel) and _near(b, panel):
            _line(panel, a, b, colours[i + 1])
    for pixel, colour in zip(pixels, colours, strict=True):
        if _near(pixel, panel):
            cv2.circle(panel, _fixed(pixel), 3 << _SMOOTH, colour, -1, cv2.LINE_AA, _SMOOTH)


def draw_scale(panel: ImageArray, scale: float) -> None:
    """The colours' legend along the panel's bottom."""
    height, width, _ = panel.shape
    ramp = np.linspace(0, 255, width // 3).astype(np.uint8)[None]
    bar = cv2.applyColorMap(np.repeat(ramp, 8, axis=0), cv2.COLORMAP_TURBO)[..., ::-1]
    panel[height - 16 : height - 8, width - 12 - bar.shape[1] : width - 12] = bar
    text = f"doubt 0 to {scale:.2f} nats"
    place = (width - 12 - bar.shape[1], height - 22)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, thickness, cv2.LINE_AA)


def latest(plan: Plan | None, now_ns: int) -> Plan | None:
    """A plan that still has rows to come at `now_ns`."""
    return plan if plan is not None and plan.times_ns[-1] >= now_ns else None


def _colours(plan: Plan, now_ns: int, scale: float) -> list[tuple[int, int, int]]:
    if plan.uncertainty is None or scale <= 0:
        return [PLAIN if t >= now_ns else PAST for t in plan.times_ns]
    share = np.nan_to_num(np.clip(plan.uncertainty / scale, 0.0, 1.0), nan=1.0)
    shades = cv2.applyColorMap((255 * share).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1].tolist()
    return [(r, g, b) if t >= now_ns else PAST for t, (r, g, b) in zip(plan.times_ns, shades, strict=True)]


def _on_panel(pixels: FloatArray, camera: CameraModel, panel: ImageArray) -> FloatArray:
    height, width, _ = panel.shape
    ratio = max(camera.width_px / width, camera.height_px / height)
    margin = np.array([(width - int(camera.width_px / ratio)) // 2, (height - int(camera.height_px / ratio)) // 2])
    placed: FloatArray = (pixels + 0.5) / ratio - 0.5 + margin
    return placed


def _near(pixel: FloatArray, panel: ImageArray) -> bool:
    """Whether a point is worth drawing: finite, and not so far out that its integer would overflow."""
    return bool(np.isfinite(pixel).all() and (np.abs(pixel) < 4 * max(panel.shape)).all())


def _line(panel: ImageArray, a: FloatArray, b: FloatArray, colour: tuple[int, int, int]) -> None:
    for shade, thickness in (((0, 0, 0), 4), (colour, 2)):
        cv2.line(panel, _fixed(a), _fixed(b), shade, thickness, cv2.LINE_AA, _SMOOTH)


def _fixed(pixel: FloatArray) -> tuple[int, int]:
    x, y = np.rint(pixel * (1 << _SMOOTH)).astype(int).tolist()
    return x, y
