from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from e0_policy.augmentation import (
    AugmentationConfig,
    AugmentationError,
    Camera,
    Draw,
    augment,
    draw_augmentation,
    homographies,
    spherical_homography,
    without_camera,
)

SIDE = 48
VIEWS = ("base", "wrist")
CAMERA = Camera(60.0, 55.0, 30.0, 25.0, 64, 48)
OFF = AugmentationConfig(
    spherical_probability=0.0, crop=1.0, rotation_rad=0.0, brightness=0.0, contrast=0.0, saturation=0.0
)


def _images(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((batch, 2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _apply(images: torch.Tensor, draw: Draw) -> torch.Tensor:
    return augment(images, draw, homographies(draw, {"base": CAMERA}, VIEWS, SIDE))


def test_zero_ranges_are_the_identity():
    draw = draw_augmentation(OFF, VIEWS, 3, torch.Generator().manual_seed(0))
    images = _images(3)
    assert (draw.offset == 0).all()
    torch.testing.assert_close(_apply(images, draw), images, atol=1e-6, rtol=0)


def test_resampling_with_the_identity_map_is_the_identity():
    draw = draw_augmentation(OFF, VIEWS, 2, torch.Generator())
    images, maps = _images(2), torch.eye(3).double().repeat(2, 2, 1, 1)
    maps[..., 0, 2] = 1e-7
    torch.testing.assert_close(augment(images, draw, maps), images, atol=1e-5, rtol=0)


def _pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(5 * x + y), np.cos(4 * y - x), np.sin(3 * x) * np.cos(3 * y)], -1) * 0.5


def _render(rotation: np.ndarray, shift: np.ndarray, k: np.ndarray, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """Analytic picture of a painted plane Z = depth, from a camera that sees X' = R X + t; and the rays' hit points."""
    v, u = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(k).T @ rotation
    origin = -rotation.T @ shift
    scale = (depth - origin[2]) / rays[..., 2]
    hit = origin + scale[..., None] * rays
    return _pattern(hit[..., 0] / depth, hit[..., 1] / depth), hit


@pytest.mark.parametrize(
    ("radial", "yaw", "pitch"), [(0, 0.2, 0), (0, 0, -0.15), (0, -0.25, 0.3), (0.2, 0, 0), (-0.15, 0.1, 0.1)]
)
def test_the_warp_shows_what_a_moved_camera_would_see(radial, yaw, pitch):
    depth, k = 0.8, CAMERA.matrix(SIDE).numpy()
    turn_y = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    turn_x = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    original, _ = _render(np.eye(3), np.zeros(3), k, depth)
    expected, hit = _render(turn_x @ turn_y, np.array([0, 0, radial]), k, depth)
    offset = torch.tensor([[[radial, yaw, pitch], [0, 0, 0]]], dtype=torch.float64)
    draw = replace(draw_augmentation(OFF, VIEWS, 1, torch.Generator()), offset=offset, depth_m=depth)
    images = torch.from_numpy(original).permute(2, 0, 1).float().repeat(1, 2, 1, 1, 1)
    warped = _apply(images, draw)[0, 0].permute(1, 2, 0).numpy()
    source = hit @ k.T / hit[..., 2:]
    inside = ((source[..., :2] >= 1) & (source[..., :2] <= SIDE - 2)).all(-1)
    assert 0.3 < inside.mean() < 1.0 or radial > 0
    assert np.abs(warped - expected)[inside].max() < 0.02
    assert np.abs(original - expected)[inside].max() > 0.1
    outside = ((source[..., :2] < -1) | (source[..., :2] > SIDE)).any(-1)
    assert (warped[outside] == -1).all()


def test_depth_matters_only_with_a_radial_displacement():
    k = CAMERA.matrix(SIDE)
    near, far = (spherical_homography(torch.tensor([0.0, 0.2, 0.1]).double(), k, d) for d in (0.5, 2.0))
    torch.testing.assert_close(near, far)
    near, far = (spherical_homography(torch.tensor([0.1, 0.2, 0.1]).double(), k, d) for d in (0.5, 2.0))
    assert (near - far).abs().max() > 1e-2


def test_a_batch_equals_its_samples_one_by_one():
    draw = draw_augmentation(AugmentationConfig(radial_m=0.1), VIEWS, 4, torch.Generator().manual_seed(3))
    images = _images(4)
    together = _apply(images, draw)
    for i in range(4):
        torch.testing.assert_close(_apply(images[i : i + 1], draw[i]), together[i : i + 1], atol=1e-6, rtol=0)


def test_wrist_views_keep_their_geometry_and_change_colour():
    config = AugmentationConfig(spherical_probability=1.0)
    draw = draw_augmentation(config, VIEWS, 8, torch.Generator().manual_seed(1))
    assert (draw.offset[:, 1] == 0).all() and (draw.offset[:, 0, 1:] != 0).all()
    maps = homographies(draw, {}, VIEWS, SIDE)
    torch.testing.assert_close(maps[:, 1], torch.eye(3).double().expand(8, 3, 3), atol=1e-12, rtol=0)
    assert ((maps[:, 0] - torch.eye(3)).abs().amax((1, 2)) > 1e-2).all()
    assert (draw.colour[:, 1] != 1).all()
    image = torch.zeros(8, 2, 3, SIDE, SIDE)
    image[:, 1, :, 10:20, 10:20] = 0.8
    out = augment(image, draw, maps)[:, 1]
    assert ((out - out[..., :1, :1]).abs().sum(1) > 1e-3).any(-1).sum(-1).tolist() == [10] * 8


def test_crop_shows_a_part_and_rotation_turns_about_the_centre():
    config = replace(OFF, crop=0.5)
    draw = replace(draw_augmentation(config, VIEWS, 1, torch.Generator()), crop=torch.tensor([[[0.5, 1.0, -1.0]] * 2]))
    images = torch.full((1, 2, 3, SIDE, SIDE), -1.0)
    images[..., : SIDE // 2, SIDE // 2 :] = 0.5
    out = _apply(images, replace(draw, crop=draw.crop.double()))
    assert (out[..., :-1, 1:] - 0.5).abs().max() < 1e-5
    quarter = replace(
        draw_augmentation(OFF, VIEWS, 1, torch.Generator()), rotation=torch.full((1, 2), math.pi / 2).double()
    )
    images = _images(1)
    torch.testing.assert_close(_apply(images, quarter), torch.rot90(images, -1, (-2, -1)), atol=1e-4, rtol=0)


def test_the_same_seed_draws_the_same_whatever_is_switched_on():
    first = draw_augmentation(AugmentationConfig(), VIEWS, 2, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    draw_augmentation(OFF, VIEWS, 2, generator)
    again = torch.Generator().manual_seed(5)
    assert torch.equal(draw_augmentation(AugmentationConfig(), VIEWS, 2, again).colour, first.colour)
    assert torch.equal(torch.rand(1, generator=generator), torch.rand(1, generator=again))


def test_intrinsics_follow_the_resize():
    k = Camera(600.0, 600.0, 319.5, 239.5, 640, 480).matrix(224)
    torch.testing.assert_close(k[:, 2], torch.tensor([111.5, 111.5, 1.0]).double())
    assert k[0, 0].item() == pytest.approx(210.0)


def test_bad_settings_and_sizes_are_named():
    with pytest.raises(AugmentationError, match=r"crop is 1\.5; allowed is 0\.5 to 1\.0"):
        AugmentationConfig(crop=1.5)
    with pytest.raises(AugmentationError, match="below the depth"):
        AugmentationConfig(radial_m=1.0)
    draw = draw_augmentation(OFF, VIEWS, 2, torch.Generator())
    with pytest.raises(AugmentationError, match=r"images \(3, 2, 3, 48, 48\)"):
        augment(_images(3), draw, homographies(draw, {}, VIEWS, SIDE))


def test_views_that_are_warped_by_guessed_intrinsics_are_named() -> None:
    views, known = ("base", "side", "wrist"), {"side": Camera.from_fov(1.0)}
    assert without_camera(AugmentationConfig(), known, views) == ("base",)
    assert without_camera(AugmentationConfig(spherical_probability=0.0), known, views) == ()
    assert without_camera(AugmentationConfig(yaw_rad=0.0, pitch_rad=0.0), known, views) == ()
