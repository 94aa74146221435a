"""Has a fixed camera moved since a recording? Its pictures then and now over each other, and how far they are apart.

Features of both pictures are matched (ORB, Rublee et al. 2011); the motion that most of them share is the camera's,
and what the arm and the objects did is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from e0_policy.types import FloatArray, ImageArray

FEATURES = 2000
LEAST_MATCHES = 20
MOST_SHARE = 0.006
"""Largest shift over the picture's width that counts as none: 4 px of 640."""


@dataclass(frozen=True)
class ViewShift:
    """How far the picture of a view has moved.

    Attributes:
        shift_px: root mean square over the whole picture; NaN if it cannot be told.
        turn_deg: rotation about the viewing direction.
        scale: of the picture.
        matches: features that agree.
        width_px: of the pictures.

    """

    shift_px: float
    turn_deg: float
    scale: float
    matches: int
    width_px: int

    @property
    def moved(self) -> bool:
        """Whether the camera has moved, as far as can be told."""
        return bool(np.isfinite(self.shift_px) and self.shift_px > MOST_SHARE * self.width_px)

    def words(self) -> str:
        """In a line."""
        if not np.isfinite(self.shift_px):
            return f"cannot be told: only {self.matches} features agree; look at the overlay"
        allowed = MOST_SHARE * self.width_px
        verdict = f"MOVED (allowed {allowed:.1f} px)" if self.moved else "where it was"
        return f"{verdict}: {self.shift_px:.2f} px, turned {self.turn_deg:+.2f} deg, scale {self.scale:.4f}"


def view_shift(before: ImageArray, now: ImageArray) -> ViewShift:
    """Compare two RGB pictures of a view; another size is brought to that of `before`."""
    height, width = before.shape[:2]
    if now.shape[:2] != (height, width):
        now = np.asarray(cv2.resize(now, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    transform, matches = _shared_motion(_grey(before), _grey(now))
    if transform is None:
        return ViewShift(float("nan"), 0.0, 1.0, matches, width)
    rows, columns = np.mgrid[0 : height - 1 : 9j, 0 : width - 1 : 9j]
    places = np.stack([columns.ravel(), rows.ravel(), np.ones(81)])
    moved = transform @ places - places[:2]
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    turn = float(np.degrees(np.arctan2(transform[1, 0], transform[0, 0])))
    return ViewShift(float(np.sqrt((moved**2).sum(axis=0).mean())), turn, scale, matches, width)


def overlay(before: ImageArray, now: ImageArray) -> ImageArray:
    """Both pictures in one: what was there before is red, what is there now is cyan, what is the same is grey."""
    height, width = before.shape[:2]
    then, here = _grey(before), cv2.resize(_grey(now), (width, height), interpolation=cv2.INTER_AREA)
    both: ImageArray = np.stack([then, here, here], axis=2).astype(np.uint8)
    return both


def _grey(image: ImageArray) -> ImageArray:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _shared_motion(before: ImageArray, now: ImageArray) -> tuple[FloatArray | None, int]:
    """Similarity `(2, 3)` from the first picture to the second that most features share, and how many do."""
    finder = cv2.ORB_create(FEATURES, fastThreshold=7)  # type: ignore[attr-defined]
    (points, marks), (there, others) = (finder.detectAndCompute(image, None) for image in (before, now))
    if marks is None or others is None:
        return None, 0
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(marks, others)
    if len(pairs) < LEAST_MATCHES:
        return None, len(pairs)
    a = np.array([points[pair.queryIdx].pt for pair in pairs])
    b = np.array([there[pair.trainIdx].pt for pair in pairs])
    transform, inliers = cv2.estimateAffinePartial2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=2.0)
    agree = 0 if inliers is None else int(inliers.sum())
    return (None, agree) if transform is None or agree < LEAST_MATCHES else (np.asarray(transform, np.float64), agree)
