"""A hash of what happened in an episode: in lock-step the same seed gives the same one, with or without topics."""

from __future__ import annotations

import hashlib

from e0_policy.types import FloatArray


class Trace:
    """Poses of the scene and commanded references by stamp, whatever the order in which they are told."""

    def __init__(self) -> None:
        self._scenes: dict[int, bytes] = {}
        self._references: dict[int, bytes] = {}

    def scene(self, stamp_ns: int, poses: FloatArray) -> None:
        """Poses `(k, 7)` at a control step."""
        self._scenes[stamp_ns] = poses.tobytes()

    def reference(self, stamp_ns: int, positions: FloatArray) -> None:
        """Commanded positions `(joints,)` at a tick."""
        self._references[stamp_ns] = positions.tobytes()

    def digest(self) -> str:
        """Hash over every scene and over the references of the steps before the last scene; no stamp counts."""
        last_ns = max(self._scenes, default=0)
        first_ns = min(self._scenes, default=0)
        scenes = b"".join(self._scenes[t] for t in sorted(self._scenes))
        between = [t for t in sorted(self._references) if first_ns <= t < last_ns]
        return hashlib.sha256(scenes + b"".join(self._references[t] for t in between)).hexdigest()[:24]
