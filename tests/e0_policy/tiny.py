"""A model of a few thousand parameters, batches for it, and a checkpoint that drives a Panda with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from e0_policy.action_tokenizer import ActionTokenizer
from e0_policy.batch import Batch
from e0_policy.checkpoint import Checkpoint, save_checkpoint
from e0_policy.embodiment import load_embodiment
from e0_policy.model import E0Model
from e0_policy.model_config import E0Config
from e0_policy.normalization import Normalizer
from e0_policy.text_tokenizer import Prompt, WordTokenizer
from e0_policy.transforms import PolicyTransform
from e0_policy.types import Representation
from e0_ros.core.step_rows import OSC_POSE

ARM = load_embodiment("panda")
NAMES = (*ARM.joint_names, "gripper")
PERIOD = 50_000_000
WORDS = ("pick", "up", "the", "cube", "move", "every", "joint", "to", "its", "mark", "go", "around", "post", "target")
SIZES = {"action_dim": 8, "proprio_dim": 8, "max_text_tokens": 12, "bins": 64, "committed_max": 3, "vocab_size": 320}


def tiny_config(**changes: Any) -> E0Config:
    values: dict[str, Any] = {
        "image_size": 32,
        "vocab_size": 64,
        "max_text_tokens": 8,
        "proprio_dim": 4,
        "vision_width": 16,
        "vision_heads": 2,
        "vision_mlp": 32,
        "width": 32,
        "mlp": 48,
        "expert_width": 16,
        "expert_mlp": 32,
        "depth": 2,
        "heads": 4,
        "head_dim": 8,
        "prediction_horizon": 4,
        "action_dim": 3,
        "bins": 8,
        "steps": 4,
    }
    return E0Config.from_dict({**values, **changes})


def tiny_model(seed: int = 0, columns: int | None = None, **changes: Any) -> E0Model:
    """A model whose every weight is random, also those that start at zero; `columns`: real action columns."""
    torch.manual_seed(seed)
    model = E0Model(tiny_config(**changes)).eval()
    model.columns = model.columns if columns is None else columns
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_batch(config: E0Config, size: int = 2, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    views, side = len(config.views), config.image_size
    chunk = (size, config.prediction_horizon, config.action_dim)
    return Batch(
        images=torch.rand(size, views, 3, side, side, generator=g) * 2 - 1,
        view_mask=torch.ones(size, views, dtype=torch.bool),
        view_offset=torch.randn(size, views, 3, generator=g) * 0.1,
        text_tokens=torch.randint(0, config.vocab_size, (size, config.max_text_tokens), generator=g),
        text_mask=torch.arange(config.max_text_tokens).expand(size, -1) < 5,
        proprio=torch.rand(size, config.proprio_dim, generator=g) * 2 - 1,
        action_tokens=torch.randint(0, config.bins, chunk, generator=g),
        action_mask=torch.ones(chunk, dtype=torch.bool),
        committed=torch.zeros(size, dtype=torch.long),
    )


def transform(**changes: Any) -> PolicyTransform:
    low, high = np.append(ARM.position_lower, 0.0), np.append(ARM.position_upper, 1.0)
    actions = Normalizer("quantile", NAMES, np.append(-0.2 * np.ones(7), 0.0), np.append(0.2 * np.ones(7), 1.0))
    values: dict[str, Any] = {
        "views": ("base", "wrist"),
        "image_size": 32,
        "prompt": Prompt(WordTokenizer(WORDS, 320), 12),
        "proprioception": Normalizer("quantile", NAMES, low, high),
        "proprio_dim": 8,
        "actions": actions,
        "relative": (True,) * 7 + (False,),
        "action_dim": 8,
        "prediction_horizon": 4,
        "tokenizer": ActionTokenizer(64),
    }
    return PolicyTransform(**{**values, **changes})


def tiny_checkpoint(folder: Path) -> Path:
    """A checkpoint with random weights for a Panda with the views `base` and `wrist`."""
    model = tiny_model(**SIZES)
    made = Checkpoint(model.config, transform().to_json(), "panda", PERIOD, 2)
    save_checkpoint(folder, model.state_dict(), made)
    return folder


def tiny_step_checkpoint(folder: Path, names: tuple[str, ...] = OSC_POSE) -> Path:
    """The same with rows of a benchmark's own controller."""
    model, low = tiny_model(**SIZES), np.append(-np.ones(len(names) - 1), 0.0)
    actions = Normalizer("quantile", names, low, np.ones(len(names)))
    made = transform(actions=actions, relative=(False,) * len(names)).to_json()
    kind = Representation.EE_DELTA_STEP
    whole = Checkpoint(model.config, made, "panda", PERIOD, 2, representation=kind)
    save_checkpoint(folder, model.state_dict(), whole)
    return folder
