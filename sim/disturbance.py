"""Smooth pushes on the arm while demonstrations are recorded: what is seen deviates, what is commanded does not.

A policy that has only seen an expert's own path does not know the way back to it. With the supervisor's motion
disturbed and its intended commands kept as labels, it learns that (DART, arXiv 1703.09327).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e0_policy.types import FloatArray

_LENGTH_S, _PAUSE_S = (0.3, 0.8), (0.2, 1.5)


@dataclass(frozen=True)
class _Push:
    start_s: float
    length_s: float
    offset_rad: FloatArray


class Disturbance:
    """Offsets of the joints' set-points, a function of the scene's seed and the time since its reset.

    Args:
        joints: number of joints.
        amplitude_rad: largest offset of a joint.
        share: of the scenes that are disturbed at all.

    """

    def __init__(self, joints: int, amplitude_rad: float, share: float) -> None:
        self._joints, self._amplitude_rad, self._share = joints, amplitude_rad, share
        self.restart(0)

    def restart(self, seed: int) -> None:
        """A new scene."""
        self._random = np.random.default_rng((seed, 0xD157))
        self._active = self._random.random() < self._share
        self._push = _Push(0.0, 0.0, np.zeros(self._joints))

    def at(self, time_s: float) -> tuple[FloatArray, FloatArray]:
        """Offset [rad] and its rate [rad/s], each `(joints,)`; `time_s` does not go back between two resets."""
        while self._active and time_s >= self._push.start_s + self._push.length_s:
            self._push = self._next(self._push)
        phase = (time_s - self._push.start_s) / self._push.length_s if self._push.length_s else -1.0
        if not 0.0 <= phase < 1.0:
            return np.zeros(self._joints), np.zeros(self._joints)
        rate = np.pi / self._push.length_s * np.sin(2 * np.pi * phase)
        return self._push.offset_rad * np.sin(np.pi * phase) ** 2, self._push.offset_rad * rate

    def _next(self, last: _Push) -> _Push:
        pause_s, length_s = self._random.uniform(*_PAUSE_S), self._random.uniform(*_LENGTH_S)
        offset = self._random.uniform(-self._amplitude_rad, self._amplitude_rad, self._joints)
        return _Push(last.start_s + last.length_s + pause_s, length_s, offset)
