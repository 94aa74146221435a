"""E0: a vision-language-action policy by Tweedie discrete diffusion. Free of ROS.

from e0_policy import E0Model, SamplerSettings, load_policy, preset

Nothing heavy is imported before it is used: robots without torch need the numpy part only.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "Batch": "batch",
    "Checkpoint": "checkpoint",
    "E0Config": "model_config",
    "E0Model": "model",
    "Engine": "engine",
    "SamplerSettings": "diffusion",
    "draw_noise": "diffusion",
    "load_policy": "inference",
    "load_pretrained": "weights",
    "preset": "model_config",
    "read_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
