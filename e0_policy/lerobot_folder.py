"""A `pretrained_model` folder of LeRobot, read without LeRobot: what the policy is fed and gives, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from e0_policy.files import sha256
from e0_policy.foreign_features import FeatureError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
KINDS = ("act", "diffusion", "pi0", "pi05", "smolvla")
"""Those that were run; others of LeRobot's may work."""
IMAGES, STATE, ACTION, TASK = "observation.images.", "observation.state", "action", "task"
MAX_CONFIG_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class LeRobotFolder:
    """What a folder says.

    Attributes:
        folder: of the checkpoint.
        kind: LeRobot's name of the policy.
        images: name of each image to its height and width.
        state: length of the state; 0: it takes none.
        action: columns of a row.
        rows: rows of a plan.
        execution_horizon: rows meant to run before the next plan.
        observations: how many observations it looks at.

    """

    folder: Path
    kind: str
    images: Mapping[str, tuple[int, int]]
    state: int
    action: int
    rows: int
    execution_horizon: int
    observations: int

    def defaults(self) -> dict[str, Any]:
        """Features of a policy that was trained on a dataset of ours, as `features_of` takes them."""
        return {
            "views": {name.removeprefix(IMAGES): name for name in self.images},
            "images": {name: list(size) for name, size in self.images.items()},
            "state": {STATE: ["joints", "gripper"]} if self.state else {},
            "instruction": TASK,
            "execution_horizon": self.execution_horizon,
            "observations": self.observations,
        }

    def digests(self) -> tuple[str, str]:
        """The first digits of the SHA-256 of the weights, and of everything else that decides what it does."""
        others = sorted(p for p in self.folder.iterdir() if p.suffix in (".json", ".safetensors") and p.name != WEIGHTS)
        told = hashlib.sha256()
        for path in others:
            told.update(f"{path.name} {_sum(path)}\n".encode())
        return _sum(self.folder / WEIGHTS)[:16], told.hexdigest()[:8]


def is_lerobot(folder: Path) -> bool:
    """Whether a folder holds a policy of LeRobot's."""
    try:
        data = _json(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "type" in data and "input_features" in data


def read_folder(folder: Path) -> LeRobotFolder:
    """Read a folder.

    Raises:
        FeatureError: a file is missing, or the configuration is not one of LeRobot 0.4 or later.

    """
    for name in (CONFIG, WEIGHTS, *PROCESSORS):
        if not (folder / name).is_file():
            hint = "" if name in (CONFIG, WEIGHTS) else "; LeRobot before 0.4 wrote none: migrate it with its script"
            raise FeatureError(f"{folder} has no {name}{hint}")
    for name in PROCESSORS:
        _check_steps(folder / name)
    try:
        data = _json(folder / CONFIG)
        inputs, action = data["input_features"], data["output_features"][ACTION]["shape"]
        shapes = {name: f["shape"] for name, f in inputs.items() if f["type"] == "VISUAL"}
        rows = int(data.get("chunk_size") or data.get("n_action_steps"))
        return LeRobotFolder(
            folder,
            str(data["type"]),
            {name: (int(shape[1]), int(shape[2])) for name, shape in shapes.items()},
            int(inputs[STATE]["shape"][0]) if STATE in inputs else 0,
            int(action[0]),
            rows,
            min(int(data.get("n_action_steps") or rows), rows),
            int(data.get("n_obs_steps") or 1),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise FeatureError(f"{folder / CONFIG} is not LeRobot's: {type(error).__name__}: {error}") from None


def step_names(folder: Path) -> list[str]:
    """LeRobot's names of the steps before the policy."""
    return [str(step.get("registry_name", "")) for step in _json(folder / PROCESSORS[0]).get("steps", [])]


def _check_steps(path: Path) -> None:
    """A processor's file may name any class of any module; only LeRobot's own are let in.

    Raises:
        FeatureError: it names another.

    """
    steps = _json(path).get("steps", [])
    for step in steps:
        named = str(step.get("class", "")) if "registry_name" not in step else ""
        if named and not named.startswith("lerobot."):
            raise FeatureError(f"{path} names {named}; code of others is not loaded, only LeRobot's own steps")


def _json(path: Path) -> Any:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path} is too long")
    return json.loads(path.read_text(encoding="utf-8"))


def _sum(path: Path) -> str:
    told = path.stat()
    return _sum_of(path, told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=64)
def _sum_of(path: Path, changed_ns: int, size: int) -> str:
    """Its SHA-256; weights of gigabytes are read once."""
    return sha256(path)
