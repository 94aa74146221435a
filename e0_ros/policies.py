"""Checkpoints outside e0_policy: what one needs to be fed, read without torch, and the policy that it holds.

The one place outside e0_policy that loads its torch part, and only when asked: nodes and simulators know the `Policy`
protocol alone.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from e0_policy.policy import Policy
from e0_policy.types import ImageArray
from e0_ros.config import ConfigError

CONFIG = "config.json"
FIRST_VIEWS = "views.npz"
MAX_CONFIG_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Card:
    """What a checkpoint expects and gives.

    Attributes:
        identifier: the first digits of the SHA-256 of its weights.
        digest: the first digits of the SHA-256 of its configuration.
        embodiment: whose actions it predicts.
        views: camera views that it was trained on, in order.
        image_px: side of the pictures that it was trained on before they were scaled for the network, if its maker
            wrote that down (`training.image_px`), else the network's own.
        execution_horizon: rows meant to run before the next plan.
        training: what its maker wrote down of its making.

    """

    identifier: str
    digest: str
    embodiment: str
    views: tuple[str, ...]
    image_px: int
    execution_horizon: int
    training: Mapping[str, Any] = field(default_factory=dict)


def read_card(folder: Path) -> Card:
    """Read a checkpoint's configuration; whether it is undamaged is checked when it is loaded.

    Raises:
        ConfigError: there is no checkpoint, or its configuration is not one.

    """
    path = folder / CONFIG
    if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{folder} holds no checkpoint; one is a folder with {CONFIG} and model.safetensors")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        model, training = data["model"], data["training"]
        return Card(
            identifier=str(data["weights_sha256"])[:16],
            digest=str(data["sha256"])[:8],
            embodiment=str(data["embodiment"]),
            views=tuple(str(view) for view in model["views"]),
            image_px=int(training.get("image_px", model["image_size"])),
            execution_horizon=int(data["execution_horizon"]),
            training=dict(training),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not the configuration of an E0 checkpoint: {type(error).__name__}: {error}"
        ) from None


def first_views(folder: Path) -> dict[str, ImageArray]:
    """A picture of every view from the data that a checkpoint was trained on; empty if it has none.

    Raises:
        ConfigError: they cannot be read.

    """
    path = folder / FIRST_VIEWS
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {str(view): np.asarray(stored[view]) for view in stored}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} cannot be read ({error}); copy the checkpoint again, or remove that file") from None
    if wrong := [v for v, image in found.items() if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3]:
        raise ConfigError(f"{path}: {wrong[0]} is no picture; copy the checkpoint again, or remove that file")
    return found


def load_checkpoint(folder: str, device: str = "auto", settings: Mapping[str, Any] | None = None) -> Policy:
    """The policy of a checkpoint.

    Args:
        folder: the checkpoint.
        device: torch device, or auto.
        settings: of inference (`e0_policy.inference.InferenceSettings`, `e0_policy.diffusion.SamplerSettings`).

    Raises:
        ValueError: no such checkpoint, a damaged one, a wrong setting, or the policy's requirements are missing.

    """
    if not folder or not Path(folder).exists():
        raise ConfigError(f"checkpoint is {folder!r}; policy e0 needs an existing checkpoint")
    try:
        from e0_policy.inference import load_policy
    except ImportError as error:
        raise ConfigError(f"policy e0 cannot be loaded ({error}); install the policy's requirements") from None
    policy: Policy = load_policy(folder, device, **(settings or {}))
    return policy
