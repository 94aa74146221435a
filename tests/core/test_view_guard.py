import cv2
import numpy as np
import pytest

from e0_ros.core.decode import resize_with_pad
from e0_ros.core.view_guard import ViewGuard
from tests.core.test_view_check import seen, table


def observed(image):
    return resize_with_pad(image, 224, 224)


@pytest.mark.parametrize("px", [None, 224])
def test_a_camera_that_stayed_and_one_that_moved_as_a_policy_sees_them(px) -> None:
    rng, scene = np.random.default_rng(5), table()
    before = seen(scene, rng) if px is None else observed(seen(scene, rng))
    guard = ViewGuard({"base": before, "side": before, "wrist": before})
    assert guard.words == "" and guard.moved == ()
    guard.look({"base": observed(seen(scene, rng)), "side": observed(seen(scene, rng, 14.0)), "wrist": before})
    assert guard.moved == ("side",) and set(guard.shifts) == {"base", "side"}
    assert guard.shifts["side"].shift_px == pytest.approx(14.0 * 224 / 640, abs=0.6)
    assert "base where it was" in guard.words and "side MOVED" in guard.words
    picture = cv2.imdecode(np.frombuffer(guard.overlays["side"], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (168, 224, 3), "without the padding, whose edge moves with no camera"


def test_views_on_an_arm_have_not_moved_when_the_arm_stands_elsewhere() -> None:
    rng, scene = np.random.default_rng(5), table()
    guard = ViewGuard(dict.fromkeys(("wrist", "left_wrist", "right_wrist"), observed(seen(scene, rng))))
    guard.look(dict.fromkeys(("wrist", "left_wrist", "right_wrist"), observed(seen(scene, rng, 14.0))))
    assert guard.moved == () and not guard.shifts


def test_another_scene_is_said_to_be_beyond_telling_and_is_not_passed_off_as_unmoved() -> None:
    rng = np.random.default_rng(6)
    guard = ViewGuard({"base": np.full((480, 640, 3), 90, np.uint8)})
    guard.look({"base": observed(seen(table(), rng)), "other": observed(seen(table(), rng))})
    assert "cannot be told" in guard.words and guard.moved == () and np.isnan(guard.shifts["base"].shift_px)
