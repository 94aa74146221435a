"""Policies of others, described: what a checkpoint that is not E0's is fed and gives, before anything is loaded.

A checkpoint is `ws://HOST:PORT` of an openpi server, or a `pretrained_model` folder of LeRobot's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from e0_policy.foreign_features import FeatureError, Features, features_of
from e0_policy.lerobot_folder import LeRobotFolder, is_lerobot, read_folder

SCHEMES = ("ws://", "wss://")


@dataclass(frozen=True)
class ForeignSettings:
    """How a policy of others is reached; what it is fed and answers is in `Features`.

    Attributes:
        name: of what an openpi server serves, for the records: it does not say so itself.
        timeout_s: longest time for a plan.
        first_timeout_s: longest time for the first plan, before which a network may be compiled.
        start_s: longest time for a server to come up.
        api_key: of an openpi server.
        seed: of the noise (LeRobot).
        threads: of the CPU (LeRobot); 0: torch's own number.
        python: LeRobot's interpreter; empty: `.venv-lerobot`, or this one if it has lerobot.
        online: let LeRobot fetch tokenizers and backbones from the hub.
        tokenizer: folder of the text tokenizer, for LeRobot's policies that name one on the hub.
        vlm: folder with the configuration of SmolVLA's backbone.

    """

    name: str = ""
    timeout_s: float = 10.0
    first_timeout_s: float = 300.0
    start_s: float = 120.0
    api_key: str = ""
    seed: int = 0
    threads: int = 0
    python: str = ""
    online: bool = False
    tokenizer: str = ""
    vlm: str = ""

    def __post_init__(self) -> None:
        for f in fields(self):
            value, kind = getattr(self, f.name), type(f.default)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise FeatureError(f"setting {f.name} is {value!r}; it must be of type {kind.__name__}")


@dataclass(frozen=True)
class Foreign:
    """A policy of others, not loaded yet."""

    where: str
    features: Features
    settings: ForeignSettings
    folder: LeRobotFolder | None

    @property
    def kind(self) -> str:
        """Its maker's name of what it is."""
        return f"LeRobot {self.folder.kind}" if self.folder else "openpi server"

    def digests(self) -> tuple[str, str]:
        """Identifiers of its weights, and of everything else that decides what it does."""
        told = repr(self.features)
        weights, others = self.folder.digests() if self.folder else (self.settings.name or self.where, "")
        return weights, hashlib.sha256(f"{others} {told}".encode()).hexdigest()[:8]


def is_foreign(where: str) -> bool:
    """Whether a checkpoint is a policy of others."""
    return where.startswith(SCHEMES) or is_lerobot(Path(where))


def read_foreign(where: str, settings: Mapping[str, Any] | None = None) -> Foreign:
    """Settings over those of the file `mapping` over what the policy itself says.

    Raises:
        FeatureError: an unknown or wrong setting, no address, or a folder that is not LeRobot's.

    """
    chosen = expanded(settings or {})
    own = {f.name for f in fields(ForeignSettings)}
    how = ForeignSettings(**{name: value for name, value in chosen.items() if name in own})
    what = {name: value for name, value in chosen.items() if name not in own}
    if where.startswith(SCHEMES):
        return Foreign(check_address(where), features_of({**_OPENPI, **what}), how, None)
    folder = read_folder(Path(where))
    return Foreign(where, features_of({**folder.defaults(), **what}), how, folder)


_OPENPI = {
    "views": {"base": "observation/image", "wrist": "observation/wrist_image"},
    "state": {"observation/state": ["joints", "gripper"]},
}
"""openpi's names in its examples for LIBERO, which most configurations of one's own are made from."""


def expanded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of the YAML file that `mapping` names under them.

    Raises:
        FeatureError: there is no such file, or it is no mapping.

    """
    chosen = dict(settings)
    if not (path := chosen.pop("mapping", "")):
        return chosen
    try:
        data = yaml.safe_load(Path(str(path)).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise FeatureError(f"mapping {path}: {error}") from None
    if not isinstance(data, dict):
        raise FeatureError(f"mapping {path} is no mapping of names to values")
    return {**data, **chosen}


def check_address(address: str) -> str:
    """The address, if it can be one of a policy server.

    Raises:
        FeatureError: it cannot.

    """
    try:
        parts = urlsplit(address)
        whole = parts.hostname and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if not whole:
        raise FeatureError(f"policy server {address!r}: an address is ws://HOST:PORT or wss://HOST:PORT")
    return address
