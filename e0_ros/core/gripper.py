"""The gripper's set-point: one command per change, never a stream."""

from __future__ import annotations

from dataclasses import dataclass

from e0_policy.types import ActionChunk


@dataclass
class Gripper:
    """Edge trigger with hysteresis on an opening in [0, 1].

    An opening is sent when it differs from the last one sent by `hysteresis`, or when it is an end (0 or 1) that was
    not the last one sent, so that "closed" is not left at "almost closed".

    gripper = Gripper(hysteresis=0.05)
    gripper.update(1.00)  # 1.0   first
    gripper.update(0.97)  # None  too little
    gripper.update(0.94)  # 0.94
    gripper.update(0.00)  # 0.0
    """

    hysteresis: float
    sent: float | None = None

    def update(self, opening: float) -> float | None:
        """What to send now for a wanted opening, or None."""
        if self.sent is not None:
            at_end = opening in (0.0, 1.0) and opening != self.sent
            if not at_end and abs(opening - self.sent) < self.hysteresis:
                return None
        self.sent = opening
        return opening


def opening_in_force(chunk: ActionChunk, now_ns: int) -> float:
    """Opening of the chunk's row in force; before the first row the first, after the last the last."""
    row = min(max((now_ns - chunk.t0_ns) // chunk.period_ns, 0), len(chunk.rows) - 1)
    return float(chunk.rows[row, -1])
