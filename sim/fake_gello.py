"""A GELLO leader arm without the hardware: `e0 gello fake`, a pseudo-terminal whose servos speak the real protocol.

with FakeGello(FakeConfig(), load_calibration(path)) as leader:
    leader.port                  # give it to gello_port:=
    leader.drop(0.3)             # silent for 300 ms
    leader.jump(3, 0.5)          # joint 4 is suddenly 0.5 rad further
"""

from __future__ import annotations

import argparse
import math
import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from e0_policy.embodiment import load_embodiment
from e0_policy.resources import config_dir
from e0_policy.types import FloatArray
from e0_ros.config import add_arguments, check, from_arguments, setting
from e0_ros.core.gello_geometry import TICKS_PER_TURN, TURN_RAD, Calibration, load_calibration
from e0_ros.dynamixel import read_time_s
from sim.dynamixel_servos import BAUD_RATES, Servos

_SPEEDS = {getattr(termios, f"B{rate}"): rate for rate in BAUD_RATES}
_WAVES = np.array([0.7, 1.0, 0.8, 0.9, 1.1, 0.6, 1.3])


@dataclass(frozen=True)
class FakeConfig:
    """How the leader moves and what is wrong with it."""

    embodiment: str = setting("fr3", "arm whose home it starts from")
    still_s: float = setting(3.0, "at home before each motion", unit="s", low=0.0, high=1e6)
    motion_s: float = setting(8.0, "length of a motion, which ends at home again", unit="s", low=0.1, high=1e6)
    amplitude_rad: float = setting(0.3, "furthest from home", unit="rad", low=0.0, high=1.0)
    noise_ticks: float = setting(0.5, "standard deviation of a reading", unit="ticks", low=0.0, high=100.0)
    dropout_rate: float = setting(0.0, "share of the requests that get no answer", low=0.0, high=1.0)
    turns: int = setting(0, "every servo counts from another turn, up to this many", low=0, high=100)
    wire: bool = setting(True, "answers take as long as on a real bus")
    seed: int = setting(0, "of noise, dropouts and turns", low=0)

    def __post_init__(self) -> None:
        check(self)


class FakeGello:
    """A thread that answers on a pseudo-terminal; a context."""

    def __init__(self, config: FakeConfig, calibration: Calibration) -> None:
        self._config, self._calibration = config, calibration
        self._home = load_embodiment(config.embodiment).home
        self._random = np.random.default_rng(config.seed)
        self._turns = self._random.integers(-config.turns, config.turns + 1, len(calibration.ids))
        self._shift = np.zeros(len(calibration.joint_ids))
        self._silent_until_s = 0.0
        self._answer_s = read_time_s(len(calibration.ids), calibration.baud_rate) if config.wire else 0.0
        self.servos = Servos(calibration.ids, self.ticks, calibration.baud_rate)
        self._stopping = threading.Event()
        self._started_s = time.monotonic()
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        self.port = os.ttyname(self._theirs)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> FakeGello:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(5.0)
        os.close(self._ours)
        os.close(self._theirs)

    def move(self) -> None:
        """Begin a motion now."""
        self._started_s = time.monotonic() - self._config.still_s

    def drop(self, seconds: float) -> None:
        """Give no answers for so long."""
        self._silent_until_s = time.monotonic() + seconds

    def jump(self, joint: int, by_rad: float) -> None:
        """Move a joint at once, as a slipping horn or a servo's fault does."""
        self._shift[joint] += by_rad

    def joints(self, at_s: float) -> FloatArray:
        """Joint positions `(n,)` [rad] at a time of the steady clock."""
        within = (at_s - self._started_s) % (self._config.still_s + self._config.motion_s) - self._config.still_s
        part = min(max(within / self._config.motion_s, 0.0), 1.0)
        waves = np.sin(2 * math.pi * 2 * part * _WAVES[: len(self._home)])
        shape = waves * self._config.amplitude_rad * math.sin(math.pi * part) ** 2
        moved: FloatArray = self._home + shape + self._shift
        return moved

    def ticks(self) -> list[int]:
        """Present positions of the servos."""
        now_s, c = time.monotonic(), self._calibration
        elapsed = now_s - self._started_s
        raw = list(np.array(c.signs) * self.joints(now_s) + np.array(c.offsets_rad))
        if c.gripper_id:
            squeeze = max(0.0, math.sin(2 * math.pi * elapsed / 7.0)) if elapsed > self._config.still_s else 0.0
            raw.append(c.gripper_open_rad + squeeze * (c.gripper_closed_rad - c.gripper_open_rad))
        noise = self._random.normal(0.0, self._config.noise_ticks, len(raw))
        ticks = np.round(np.array(raw) * TICKS_PER_TURN / TURN_RAD + noise) + self._turns * TICKS_PER_TURN
        return [int(tick) for tick in ticks]

    def _line_baud(self) -> int:
        """What the other end has set its port to."""
        return _SPEEDS.get(termios.tcgetattr(self._theirs)[4], 0)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            if not select.select([self._ours], [], [], 0.1)[0]:
                continue
            asked_s = time.monotonic()
            said = self.servos.answer(os.read(self._ours, 4096), self._line_baud())
            if not said or asked_s < self._silent_until_s or self._random.random() < self._config.dropout_rate:
                continue
            time.sleep(max(0.0, self._answer_s * len(said) / 128 - (time.monotonic() - asked_s)))
            os.write(self._ours, said)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="e0 gello fake",
        description="A GELLO without the hardware: prints the port to give to gello_port:=",
        epilog="example: e0 gello fake --link /tmp/gello   and: "
        "e0 launch sim simulator:=fr3_plant source:=teleop gello_port:=/tmp/gello",
    )
    parser.add_argument("--calibration", type=Path, default=config_dir() / "gello.yaml", metavar="FILE")
    parser.add_argument("--link", type=Path, metavar="PATH", help="also make a symbolic link to the port")
    add_arguments(parser, FakeConfig)
    options = parser.parse_args(argv)
    with FakeGello(from_arguments(FakeConfig, options), load_calibration(options.calibration)) as leader:
        if options.link:
            options.link.unlink(missing_ok=True)
            options.link.symlink_to(leader.port)
        print(options.link or leader.port, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
        finally:
            if options.link:
                options.link.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
