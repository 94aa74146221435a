"""A policy that is told how far cameras stand from their places in training, as /tf_static has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from e0_policy.policy import Plan, Policy, PolicyOutput
from e0_policy.types import Observation
from e0_ros.core.camera_places import CameraPlaces

PATIENCE_S = 10.0
_UNTOLD = (
    "camera_places: nobody tells where a camera stood in training (<view>_trained_optical_frame on /tf_static), "
    "so every camera is taken to stand there; on a bench: trained_calibration:=FILE"
)


class PlacedPolicy:
    """The `Policy` inside, with `Observation.view_offsets` filled in.

    Args:
        policy: what plans.
        base_frame: of the arm.
        lockstep: wait at the first observation of an episode for transforms as new as that, because cameras may stand
            elsewhere in each scene and topics are not ordered among each other.
        warn: told in real time, at the start of an episode, that nobody tells of places in training.

    """

    def __init__(self, policy: Policy, base_frame: str, lockstep: bool, warn: Callable[[str], Any] = print) -> None:
        self._policy, self._lockstep, self._warn = policy, lockstep, warn
        self.embodiment, self.checkpoint = policy.embodiment, policy.checkpoint
        self.execution_horizon = policy.execution_horizon
        self.observe, self.prepare = (getattr(policy, name, None) for name in ("observe", "prepare"))
        self._places, self._heard = CameraPlaces(base_frame), threading.Condition()
        self._first = True

    def hear(self, message: Any) -> None:
        """Take a message of /tf_static; from any thread."""
        with self._heard:
            self._places.hear(message)
            self._heard.notify_all()

    def reset(self) -> None:
        """Begin an episode."""
        self._policy.reset()
        self._first = True

    def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput | None:
        """Plan.

        Raises:
            TimeoutError: in lock-step, nobody told where the cameras stand in this scene.

        """
        with self._heard:
            new = lambda: self._places.stamp_ns >= observation.stamp_ns  # noqa: E731
            if self._lockstep and self._first and not self._heard.wait_for(new, PATIENCE_S):
                raise TimeoutError(f"nobody told on /tf_static where the cameras stand at {observation.stamp_ns} ns")
            offsets = self._places.offsets(tuple(observation.views))
            if self._first and not offsets and not self._lockstep:
                self._warn(_UNTOLD)
            self._first = False
        return self._policy.infer(replace(observation, view_offsets=offsets), plan)
