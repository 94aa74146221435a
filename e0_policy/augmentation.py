"""Image augmentation on the device, one warp per view: spherical viewpoint, crop, rotation, then colour.

Draw and application are apart, so that the same draw gives the same images whatever the batch:

    draw = draw_augmentation(config, views, images.shape[0], generator)
    images, offsets = augment(images, draw, homographies(draw, cameras, side)), draw.offset

Pixel coordinates follow CameraInfo: integers are pixel centres, u to the right, v down. Cameras look along +Z.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from e0_policy.types import WRIST_VIEWS


class AugmentationError(ValueError):
    """A setting or an image does not fit; the message says what was got and what is allowed."""


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges that are drawn from uniformly; 0 switches a part off. Wrist views get colour only.

    A wrist camera's picture is tied to the gripper that fills it: warping it would teach a wrong hand-eye geometry.
    Crop, rotation and colour defaults are those of openpi and the E0 release; the spherical part is the paper's, whose
    ranges are not stated.
    """

    wrist_views: tuple[str, ...] = WRIST_VIEWS
    spherical_probability: float = 0.5
    yaw_rad: float = 0.15
    pitch_rad: float = 0.1
    radial_m: float = 0.0
    depth_m: float = 1.0
    crop: float = 0.95
    rotation_rad: float = math.radians(5.0)
    brightness: float = 0.3
    contrast: float = 0.4
    saturation: float = 0.5

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise AugmentationError(f"AugmentationConfig.{name} is {value}; allowed is {low} to {high}")
        if self.radial_m >= self.depth_m:
            raise AugmentationError(f"radial_m is {self.radial_m}, depth_m {self.depth_m}; it must be below the depth")


_BOUNDS = (
    ("spherical_probability", 0.0, 1.0),
    ("yaw_rad", 0.0, 1.0),
    ("pitch_rad", 0.0, 1.0),
    ("radial_m", 0.0, 10.0),
    ("depth_m", 0.01, 100.0),
    ("crop", 0.5, 1.0),
    ("rotation_rad", 0.0, math.pi),
    ("brightness", 0.0, 1.0),
    ("contrast", 0.0, 1.0),
    ("saturation", 0.0, 1.0),
)

_MAX_PX = 100_000


@dataclass(frozen=True)
class Camera:
    """Pinhole intrinsics in px of a `width` x `height` image, as in CameraInfo's K."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        for name, low in (("fx", 1), ("fy", 1), ("cx", -_MAX_PX), ("cy", -_MAX_PX), ("width", 1), ("height", 1)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low <= value <= _MAX_PX:
                raise AugmentationError(f"{name} is {value!r}; allowed is {low} to {_MAX_PX} px")

    @staticmethod
    def from_fov(fov_y_rad: float, width: int = 640, height: int = 480) -> Camera:
        """Centred camera with a vertical field of view, where no calibration is known."""
        focal = height / 2.0 / math.tan(fov_y_rad / 2.0)
        return Camera(focal, focal, (width - 1) / 2.0, (height - 1) / 2.0, width, height)

    def matrix(self, side: int) -> Tensor:
        """K `(3, 3)` after `transforms.resize_with_pad` to `side` px."""
        scale = side / max(self.width, self.height)
        left = (side - round(self.width * scale)) // 2
        top = (side - round(self.height * scale)) // 2
        cx, cy = (self.cx + 0.5) * scale - 0.5 + left, (self.cy + 0.5) * scale - 0.5 + top
        return torch.tensor([[self.fx * scale, 0.0, cx], [0.0, self.fy * scale, cy], [0.0, 0.0, 1.0]]).double()


@dataclass(frozen=True)
class Draw:
    """One draw for a batch; every tensor is `(B, V, ...)`, identity values where a part is off.

    `offset` `(d, theta, phi)`: radial displacement [m], yaw and pitch [rad] of eq. 9 and 18. The paper gives the
    unwarped twin of a warped view the negated offset; here a sample holds one of the two, and offsets are relative to
    the camera's own place: zero for a view that was not warped.
    """

    offset: Tensor
    crop: Tensor  # (B, V, 3): scale, horizontal and vertical shift in [-1, 1] of the free margin
    rotation: Tensor
    colour: Tensor  # (B, V, 3): brightness, contrast, saturation factors
    depth_m: float = field(default=1.0)

    def __getitem__(self, index: int) -> Draw:
        """Draw of one sample, as a batch of one."""
        one = slice(index, index + 1)
        return Draw(self.offset[one], self.crop[one], self.rotation[one], self.colour[one], self.depth_m)


def draw_augmentation(config: AugmentationConfig, views: Sequence[str], batch: int, generator: torch.Generator) -> Draw:
    """Draw parameters for a batch on the generator's device; the amount of randomness used is always the same."""
    shape = (batch, len(views))
    uniform = torch.rand((*shape, 10), generator=generator, dtype=torch.float64) * 2.0 - 1.0
    body = torch.tensor([name not in config.wrist_views for name in views])
    warped = body & (uniform[..., 0] < 2.0 * config.spherical_probability - 1.0)
    ranges = torch.tensor([config.radial_m, config.yaw_rad, config.pitch_rad], dtype=torch.float64)
    crop = torch.cat([torch.full((*shape, 1), config.crop), uniform[..., 4:6]], -1)
    spread = torch.tensor([config.brightness, config.contrast, config.saturation], dtype=torch.float64)
    return Draw(
        offset=uniform[..., 1:4] * ranges * warped[..., None],
        crop=torch.where(body[:, None], crop, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)),
        rotation=uniform[..., 6] * config.rotation_rad * body,
        colour=1.0 + uniform[..., 7:10] * spread,
        depth_m=config.depth_m,
    )


def spherical_homography(offset: Tensor, camera: Tensor, depth_m: float) -> Tensor:
    """Map of original to warped pixels (eq. 8, 15-17), `(..., 3, 3)`.

    A pixel is put on the plane at depth `d_center`, rotated by `R = R_x(pitch) R_y(yaw)` and projected again:
    `K (R + t n^T / d_center) K^-1` with `t = (0, 0, d)` and n the optical axis. Without a radial displacement the
    depth cancels, so that the warp is exactly a camera turned in place.

    Args:
        offset: `(..., 3)` `(d, theta, phi)`.
        camera: K `(3, 3)`.
        depth_m: fixed depth `d_center`.

    """
    radial, yaw, pitch = offset.unbind(-1)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    c, s = torch.cos(yaw), torch.sin(yaw)
    turn_y = _matrix(c, zero, s, zero, one, zero, -s, zero, c)
    c, s = torch.cos(pitch), torch.sin(pitch)
    turn_x = _matrix(one, zero, zero, zero, c, -s, zero, s, c)
    shift = torch.zeros_like(turn_x)
    shift[..., 2, 2] = radial / depth_m
    warp: Tensor = camera @ (turn_x @ turn_y + shift) @ _inverse(camera)
    return warp


def without_camera(config: AugmentationConfig, cameras: Mapping[str, Camera], views: Sequence[str]) -> tuple[str, ...]:
    """Views whose viewpoint is perturbed though their intrinsics are not known, so that `homographies` guesses them."""
    if not config.spherical_probability or not (config.yaw_rad or config.pitch_rad or config.radial_m):
        return ()
    return tuple(name for name in views if name not in config.wrist_views and name not in cameras)


def homographies(draw: Draw, cameras: Mapping[str, Camera], views: Sequence[str], side: int) -> Tensor:
    """Pixel maps `(B, V, 3, 3)` from the original to the augmented image: viewpoint, then rotation, then crop.

    A view without a camera is taken to have a vertical field of view of 60 degrees.
    """
    default = Camera.from_fov(math.radians(60.0), side, side)
    warps = [
        spherical_homography(draw.offset[:, v], cameras.get(name, default).matrix(side), draw.depth_m)
        for v, name in enumerate(views)
    ]
    scale = 1.0 / draw.crop[..., 0]
    shift = draw.crop[..., 1:] * (1.0 - draw.crop[..., :1]) * (side / 2.0)
    c, s = torch.cos(draw.rotation), torch.sin(draw.rotation)
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    turn = _matrix(c, -s, zero, s, c, zero, zero, zero, one)
    zoom = _matrix(scale, zero, -scale * shift[..., 0], zero, scale, -scale * shift[..., 1], zero, zero, one)
    middle = one * (side - 1) / 2.0
    centre = _matrix(one, zero, -middle, zero, one, -middle, zero, zero, one)
    maps: Tensor = _inverse(centre) @ zoom @ turn @ centre @ torch.stack(warps, 1)
    return maps


def _matrix(*entries: Tensor) -> Tensor:
    """`(..., 3, 3)` of nine entries `(...)`, row by row."""
    return torch.stack(entries, -1).reshape(*entries[0].shape, 3, 3)


def _inverse(matrices: Tensor) -> Tensor:
    """Of `(..., 3, 3)`, from cross products of the rows: LAPACK takes milliseconds for small ones on many threads."""
    a, b, c = matrices.unbind(-2)
    columns = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -1)
    return columns / (a * columns[..., 0]).sum(-1)[..., None, None]


def augment(images: Tensor, draw: Draw, maps: Tensor) -> Tensor:
    """Warp and recolour images; what was outside the picture is black.

    Args:
        images: `(B, V, 3, S, S)` float in [-1, 1].
        draw: of the same B and V.
        maps: `(B, V, 3, 3)` from `homographies`.

    Returns:
        Images of the same shape and range.

    Raises:
        AugmentationError: images, draw and maps of different sizes.

    """
    batch, views, channels = images.shape[:3]
    if maps.shape[:2] != (batch, views) or draw.colour.shape[:2] != (batch, views) or channels != 3:
        raise AugmentationError(
            f"images {tuple(images.shape)}, maps {tuple(maps.shape)}, draw {tuple(draw.colour.shape)}; "
            "B and V must agree, with three channels"
        )
    unit = (images.flatten(0, 1) + 1.0).div_(2.0)
    flat = maps.flatten(0, 1)
    moved = torch.nonzero((flat - torch.eye(3, dtype=maps.dtype)).abs().amax((1, 2)) > 1e-9).squeeze(1)
    if moved.numel():
        index = moved.to(images.device)
        grid = _grid(_inverse(flat[moved]).to(images), images.shape[-1])
        inside = ((grid[..., 0].abs() <= 1.0) & (grid[..., 1].abs() <= 1.0))[:, None]
        sampled = torch.nn.functional.grid_sample(unit[index], grid, "bilinear", "border", align_corners=False)
        unit.index_copy_(0, index, sampled * inside)
    coloured = _recolour(unit, draw.colour.flatten(0, 1).to(images))
    return coloured.mul_(2.0).sub_(1.0).reshape(images.shape)


def _grid(inverses: Tensor, side: int) -> Tensor:
    """Sampling grid `(N, S, S, 2)` in [-1, 1] of inverse maps: for each augmented pixel, where it comes from."""
    line = torch.arange(side, dtype=inverses.dtype, device=inverses.device)
    across, down, shift = inverses[..., None, None].unbind(2)
    x, y, depth = (across * line + down * line[:, None] + shift).unbind(1)
    ahead = depth > 1e-6
    factor = 2.0 / side / torch.where(ahead, depth, 1.0)
    return torch.stack([torch.where(ahead, axis * factor + (1.0 / side - 1.0), 2.0) for axis in (x, y)], -1)


def _recolour(unit: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast about the mean luminance, then saturation about each pixel's; changes `(N, 3, S, S)`."""
    brightness, contrast, saturation = (f[:, None, None, None] for f in factors.unbind(-1))
    unit.mul_(brightness).clamp_(0.0, 1.0)
    mean = _luminance(unit.mean((2, 3), keepdim=True))
    unit.mul_(contrast).add_(mean * (1.0 - contrast)).clamp_(0.0, 1.0)
    grey = _luminance(unit)
    return unit.mul_(saturation).add_(grey * (1.0 - saturation)).clamp_(0.0, 1.0)


def _luminance(unit: Tensor) -> Tensor:
    """`(N, 3, ...)` to `(N, 1, ...)`."""
    red, green, blue = unit.split(1, 1)
    return red * 0.299 + green * 0.587 + blue * 0.114
