import cv2
import numpy as np
import pytest

from e0_ros.core.view_check import overlay, view_shift

SIZE = 640, 480


def table(seed=0):
    """A scene with many corners: what a camera beside a table may see."""
    rng, image = np.random.default_rng(seed), np.full((560, 720, 3), 90, np.uint8)
    for _ in range(150):
        x, y, w, h = rng.integers(0, 700), rng.integers(0, 540), rng.integers(6, 60), rng.integers(6, 60)
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), rng.integers(0, 255, 3).tolist(), -1)
    return image


def seen(image, rng, dx=0.0, dy=0.0, turn_deg=0.0):
    transform = cv2.getRotationMatrix2D((360, 280), turn_deg, 1.0)
    transform[:, 2] += [dx - 40, dy - 40]
    moved = cv2.warpAffine(image, transform, SIZE).astype(float)
    return np.clip(0.9 * moved + 8 + rng.normal(0, 3, moved.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("dx", "dy", "turn"), [(0, 0, 0), (1.5, -1.0, 0), (9, 4, 0), (0, 0, 2.0), (-40, 12, -3.0)])
def test_a_shift_is_measured_also_when_light_and_objects_have_changed(dx, dy, turn) -> None:
    rng, image = np.random.default_rng(1), table()
    before = seen(image, rng)
    changed = image.copy()
    cv2.rectangle(changed, (300, 200), (420, 360), (20, 200, 60), -1)  # an object came, the arm is elsewhere
    now = seen(changed, rng, dx, dy, turn)
    shift = view_shift(before, now)
    rows, columns = np.mgrid[0:480:20j, 0:640:20j]
    t = cv2.getRotationMatrix2D((320, 240), turn, 1.0)
    moved = t[:, :2] @ np.stack([columns.ravel(), rows.ravel()]) + t[:, 2:] + [[dx], [dy]]
    truth = np.sqrt(((moved - np.stack([columns.ravel(), rows.ravel()])) ** 2).sum(axis=0).mean())
    assert shift.shift_px == pytest.approx(truth, abs=0.6)
    assert shift.moved == (truth > 4) == ("MOVED" in shift.words())
    assert abs(abs(shift.turn_deg) - abs(turn)) < 0.15


def test_another_scene_cannot_be_compared_and_is_not_passed_off_as_unmoved() -> None:
    rng = np.random.default_rng(2)
    blank = view_shift(np.full((480, 640, 3), 80, np.uint8), seen(table(), rng))
    assert np.isnan(blank.shift_px) and "cannot be told" in blank.words()
    other = view_shift(seen(table(0), rng), seen(table(9), rng))
    assert np.isnan(other.shift_px) or other.moved


def test_the_overlay_is_grey_where_nothing_changed_and_takes_another_size() -> None:
    rng = np.random.default_rng(3)
    before = seen(table(), rng)
    same = overlay(before, before)
    assert (same[..., 0] == same[..., 1]).all() and same.shape == before.shape
    assert overlay(before, cv2.resize(before, (320, 240))).shape == before.shape
    assert view_shift(before, cv2.resize(before, (1280, 960))).shift_px < 1.0
