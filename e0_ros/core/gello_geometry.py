"""A GELLO leader arm as it is assembled: from servo angles to the follower's joints, and how to calibrate that.

Servo i reads `raw_i` rad; the follower's joint is `sign_i * (raw_i - offset_i)`, up to whole turns: a Dynamixel loses
count of its turns when the power goes. Assembly is on a horn with four holes, so an offset is a multiple of pi/2, as in
gello_software (wuphilipp/gello_software, scripts/gello_get_offset.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from e0_policy.kinematics import tcp_pose_and_jacobian
from e0_policy.types import FloatArray
from e0_ros.config import ConfigError, check, from_mapping, load_yaml, setting, to_mapping

TURN_RAD = 2 * math.pi
TICKS_PER_TURN = 4096
BAUD_RATES = {57600: 1, 115200: 2, 1000000: 3, 2000000: 4}
"""Baud rates, and what the servos' register calls them."""
HOLES_RAD = math.pi / 2
MAX_RESIDUAL_RAD = 0.35
MIN_TRAVEL_RAD = MIN_TURN_RAD = 0.1


@dataclass(frozen=True)
class Calibration:
    """What `config/gello.yaml` holds; `e0 gello calibrate` writes it."""

    port: str = setting("/dev/ttyUSB0", "serial port; better one of /dev/serial/by-id")
    baud_rate: int = setting(57600, "of the servos; 57600 as they come from the factory", low=9600, high=4000000)
    joint_ids: tuple[int, ...] = setting((1, 2, 3, 4, 5, 6, 7), "servo of each joint, base first", low=1, high=252)
    signs: tuple[float, ...] = setting((1.0, -1.0, 1.0, -1.0, 1.0, 1.0, 1.0), "direction of each servo", low=-1, high=1)
    offsets_rad: tuple[float, ...] = setting((0.0,) * 7, "reading of each servo at joint position 0", unit="rad")
    gripper_id: int = setting(8, "servo of the trigger; 0: none, the gripper stays open", low=0, high=252)
    gripper_open_rad: float = setting(3.6, "reading of the trigger when let go", unit="rad")
    gripper_closed_rad: float = setting(2.9, "reading of the trigger when squeezed", unit="rad")

    def __post_init__(self) -> None:
        check(self)
        counts = {len(self.joint_ids), len(self.signs), len(self.offsets_rad)}
        if len(counts) != 1:
            raise ConfigError(
                f"joint_ids, signs and offsets_rad have {sorted(counts)} entries; one per joint is needed"
            )
        if len(set(self.ids)) != len(self.ids):
            raise ConfigError(f"servo ids are {self.ids}; each may appear once")
        if any(abs(sign) != 1 for sign in self.signs):
            raise ConfigError(f"signs are {self.signs}; each is 1 or -1")
        if self.gripper_id and abs(self.gripper_open_rad - self.gripper_closed_rad) < MIN_TRAVEL_RAD:
            raise ConfigError(
                f"the trigger moves from {self.gripper_open_rad:.3f} to {self.gripper_closed_rad:.3f} rad; "
                f"at least {MIN_TRAVEL_RAD} rad is needed"
            )

    @property
    def ids(self) -> tuple[int, ...]:
        """Servos in the order in which they are read: the joints, then the trigger if there is one."""
        return (*self.joint_ids, self.gripper_id) if self.gripper_id else self.joint_ids


def load_calibration(path: Path) -> Calibration:
    """Read a leader's file.

    Raises:
        ConfigError: it cannot be read, or something in it is unknown or wrong.

    """
    return from_mapping(Calibration, load_yaml(path), str(path))


def calibration_text(calibration: Calibration) -> str:
    """The YAML of a leader's file."""
    head = "# A GELLO leader arm; `e0 gello calibrate` writes this. Keys are those of e0_ros.core.gello_geometry.\n"
    return head + yaml.safe_dump(to_mapping(calibration), sort_keys=False, default_flow_style=None)


def ticks_to_rad(ticks: Sequence[int]) -> FloatArray:
    """Angles of servos from their positions (4096 ticks per turn)."""
    angles: FloatArray = np.asarray(ticks, np.float64) * (TURN_RAD / TICKS_PER_TURN)
    return angles


def nearest(angles: FloatArray, references: FloatArray | float) -> FloatArray:
    """The same angles, up to whole turns, within half a turn of the references."""
    near: FloatArray = angles + TURN_RAD * np.round((references - angles) / TURN_RAD)
    return near


def joints(calibration: Calibration, raw_rad: FloatArray) -> FloatArray:
    """Joint positions `(n,)` [rad], up to whole turns, of servo angles (the trigger may follow them)."""
    n = len(calibration.joint_ids)
    position: FloatArray = np.array(calibration.signs) * (raw_rad[:n] - np.array(calibration.offsets_rad))
    return position


def opening(calibration: Calibration, raw_rad: FloatArray) -> float:
    """Gripper opening in [0, 1] that the trigger asks for."""
    if not calibration.gripper_id:
        return 1.0
    open_, closed = calibration.gripper_open_rad, calibration.gripper_closed_rad
    angle = nearest(raw_rad[-1:], (open_ + closed) / 2)[0]
    return float(np.clip((angle - closed) / (open_ - closed), 0.0, 1.0))


def fit_offsets(raw_rad: FloatArray, pose: FloatArray, signs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Offsets, each the nearest multiple of pi/2 in [0, 2 pi), of a leader that is held in a known pose.

    Args:
        raw_rad: `(n,)` servo angles.
        pose: `(n,)` joint positions of the pose [rad].
        signs: `(n,)` 1 or -1.

    Returns:
        The offsets, and what each joint would read beyond the pose with them [rad], within pi/4.

    """
    exact = raw_rad - signs * pose
    holes: NDArray[np.float64] = np.round(exact / HOLES_RAD)
    return (holes % 4) * HOLES_RAD, signs * (exact - holes * HOLES_RAD)


def turn_words(pose: FloatArray, joint: int) -> str:
    """The positive direction of a Franka arm's joint at a pose `(7,)` [rad], as one who stands beside it sees it."""
    axis = tcp_pose_and_jacobian(pose)[1][3:, joint]
    along = int(np.abs(axis).argmax())
    sides = (("behind", "its front"), ("its right", "its left"), ("below", "above"))
    return f"counter-clockwise as seen from {sides[along][int(axis[along] > 0)]}"


def sign_of_turn(before_rad: FloatArray, after_rad: FloatArray, joint: int) -> float | str:
    """The sign of a joint whose servo read `before_rad`, and `after_rad` once it was turned in its positive direction.

    Args:
        before_rad: `(n,)` servo angles, up to whole turns.
        after_rad: `(n,)` the same after the turn.
        joint: which joint was turned, from 0.

    Returns:
        1 or -1, or why it cannot be told: too little, or another joint turned more.

    """
    moved = nearest(after_rad, before_rad) - before_rad
    most = int(np.abs(moved).argmax())
    if abs(moved[most]) < MIN_TURN_RAD:
        return f"no joint turned by more than {abs(moved[most]):.2f} rad; at least {MIN_TURN_RAD} rad is needed"
    if most != joint:
        return f"joint {most + 1} turned, by {abs(moved[most]):.2f} rad; turn joint {joint + 1} (or joint_ids is wrong)"
    return float(np.sign(moved[joint]))
