"""Checkpoints outside e0_policy: what one needs to be fed, read without torch, and the policy that it holds.

A checkpoint is a folder of E0's, a `pretrained_model` folder of LeRobot's, or the address of an openpi server.

The one place outside e0_policy that loads its torch part, and only when asked: nodes and simulators know the `Policy`
protocol alone.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from e0_policy.foreign import is_foreign, read_foreign
from e0_policy.policy import Policy
from e0_policy.types import ImageArray, Representation
from e0_ros.config import ConfigError
from e0_ros.environment import PACKAGES

CONFIG, E0 = "config.json", "E0"
FIRST_VIEWS = "views.npz"
MAX_CONFIG_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Card:
    """What a checkpoint expects and gives.

    Attributes:
        kind: whose it is.
        identifier: the first digits of the SHA-256 of its weights; of an openpi server its name or address.
        digest: the first digits of the SHA-256 of its configuration.
        embodiment: whose actions it predicts; empty: of the arm that it is asked to drive.
        views: camera views that it was trained on, in order.
        image_px: side of the pictures that it was trained on before they were scaled for the network, if its maker
            wrote that down (`training.image_px`), else the network's own.
        execution_horizon: rows meant to run before the next plan.
        training: what its maker wrote down of its making.
        representation: what a row of its actions is.
        action_names: columns of a row; empty: not told (policies of others).

    """

    identifier: str
    digest: str
    embodiment: str
    views: tuple[str, ...]
    image_px: int
    execution_horizon: int
    training: Mapping[str, Any] = field(default_factory=dict)
    kind: str = E0
    representation: Representation = Representation.JOINT_POSITION
    action_names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What is run, for the records: kind, weights and configuration."""
        return f"{'' if self.kind == E0 else self.kind + ' '}{self.identifier}/{self.digest}"


def read_card(where: str | Path, settings: Mapping[str, Any] | None = None) -> Card:
    """Read a checkpoint's configuration; whether it is undamaged is checked when it is loaded.

    Args:
        where: the checkpoint.
        settings: of inference; those of policies of others say what they are fed.

    Raises:
        ConfigError: there is no checkpoint, or its configuration is not one.

    """
    if is_foreign(str(where)):
        return _foreign_card(str(where), settings)
    folder = Path(where)
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
            representation=Representation.of(data.get("representation", Representation.JOINT_POSITION.label)),
            action_names=tuple(str(name) for name in data["transform"]["actions"]["names"]),
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


def _foreign_card(where: str, settings: Mapping[str, Any] | None) -> Card:
    try:
        found = read_foreign(where, settings)
        weights, others = found.digests()
    except (ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"checkpoint {where}: {error}") from None
    what = found.features
    return Card(
        weights,
        others,
        what.embodiment,
        tuple(what.views),
        what.side_px,
        what.execution_horizon,
        kind=found.kind,
        representation=what.representation,
    )


def check_rows(card: Card, step_names: Sequence[str], where: str) -> None:
    """Refuse a checkpoint whose rows cannot be executed.

    Args:
        card: of the checkpoint.
        step_names: columns of the benchmark's own rows, which a stepped simulator takes and nothing else; empty: joint
            positions and tool poses are followed.
        where: what would execute them.

    Raises:
        ConfigError: names both sides.

    """
    steps, taken = card.representation is Representation.EE_DELTA_STEP, "joint_position or ee_pose"
    if steps != bool(step_names) or (steps and card.action_names and card.action_names != tuple(step_names)):
        if step_names:
            taken = f"{Representation.EE_DELTA_STEP.label} ({', '.join(step_names)})"
        names = f" ({', '.join(card.action_names)})" if card.action_names else ""
        raise ConfigError(f"checkpoint {card.name} predicts {card.representation.label}{names}; {where} takes {taken}")


def settings_of(words: Sequence[str]) -> str:
    """Settings of inference as words like `steps=4`, as a YAML mapping.

    Raises:
        ConfigError: a word of another form.

    """
    for word in words:
        name, found, value = word.partition("=")
        if not (found and name.isidentifier() and value):
            raise ConfigError(f"--set {word!r}: NAME=VALUE is needed, e.g. steps=4")
    return "{" + ", ".join(word.replace("=", ": ", 1) for word in words) + "}"


def load_checkpoint(
    folder: str, device: str = "auto", settings: Mapping[str, Any] | None = None, embodiment: str = ""
) -> Policy:
    """The policy of a checkpoint.

    Args:
        folder: the checkpoint.
        device: torch device, or auto.
        settings: of inference (`e0_policy.inference.InferenceSettings`, `e0_policy.diffusion.SamplerSettings`; of
            policies of others `e0_policy.foreign_policy.ForeignSettings`, `e0_policy.foreign_features.Features`).
        embodiment: the arm to drive, for policies of others, which do not say whose rows they predict.

    Raises:
        ValueError: no such checkpoint, a damaged one, a wrong setting, or the policy's requirements are missing.

    """
    if folder and is_foreign(folder):
        return _foreign(folder, device, settings, embodiment)
    if not folder or not Path(folder).exists():
        raise ConfigError(f"checkpoint is {folder!r}; policy e0 needs an existing checkpoint")
    try:
        from e0_policy.inference import load_policy
    except ImportError as error:
        raise ConfigError(f"policy e0 cannot be loaded ({error}); {PACKAGES}") from None
    policy: Policy = load_policy(folder, device, **(settings or {}))
    return policy


def _foreign(where: str, device: str, settings: Mapping[str, Any] | None, embodiment: str) -> Policy:
    try:
        from e0_policy.foreign_policy import load_foreign
    except ImportError as error:
        raise ConfigError(f"{where} cannot be reached ({error}); install the extra [remote]") from None
    try:
        return load_foreign(where, embodiment, device, settings)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"checkpoint {where}: {error}") from None
