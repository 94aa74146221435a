"""A hash of what happened in an episode: in lock-step the same seed gives the same one, with or without topics."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from e0_policy.types import FloatArray


class Trace:
    """Poses of the scene and commanded references by stamp, whatever the order in which they are told."""

    def __init__(self) -> None:
        self._scenes: dict[int, bytes] = {}
        self._references: dict[int, FloatArray] = {}

    def scene(self, stamp_ns: int, poses: FloatArray) -> None:
        """Poses `(k, 7)` at a control step."""
        self._scenes[stamp_ns] = poses.tobytes()

    def reference(self, stamp_ns: int, positions: FloatArray) -> None:
        """Commanded positions `(joints,)` at a tick."""
        self._references[stamp_ns] = positions

    def motion(self) -> tuple[NDArray[np.int64], FloatArray]:
        """Stamps [ns] and commanded positions `(ticks, joints)` [rad] from the first scene to before the last one."""
        first_ns, last_ns = min(self._scenes, default=0), max(self._scenes, default=0)
        stamps = [t for t in sorted(self._references) if first_ns <= t < last_ns]
        return np.array(stamps, np.int64), np.array([self._references[t] for t in stamps])

    def digest(self) -> str:
        """Hash over every scene and over the references of the steps before the last scene; no stamp counts."""
        scenes = b"".join(self._scenes[t] for t in sorted(self._scenes))
        return hashlib.sha256(scenes + self.motion()[1].tobytes()).hexdigest()[:24]
