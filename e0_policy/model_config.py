"""Every size and every choice of an E0 model: one frozen value that goes into a checkpoint as JSON.

Paper: E0 (arXiv 2511.21542), section 3 and appendix A; the ablations of its appendix B are fields here. Presets:
`nano` trains on a CPU, `small` on one GPU in minutes, `full` is PaliGemma 3B with the 300M expert, `released` has the
semantics of the published E0DiffHybrid weights.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

VisionKind = Literal["siglip", "conv"]
TokenLayout = Literal["dim_token", "step_token"]
Noise = Literal["fixed", "redraw"]
NoiseSchedule = Literal["tau", "none"]
Sampling = Literal["argmax", "sampled"]
Decode = Literal["token", "mean", "expectation"]
BinDecode = Literal["mid", "lower"]
TimeCond = Literal["adarms", "concat_mlp"]
ProprioForm = Literal["token", "text", "special"]
Head = Literal["e0", "categorical", "l1", "l2"]


class ModelConfigError(ValueError):
    """A model configuration is wrong; the message names the field, what was got and what is allowed."""


@dataclass(frozen=True)
class E0Config:
    """Sizes, action side, diffusion and observation side of an E0 model.

    Backbone and expert share `depth`, `heads`, `kv_heads` and `head_dim`, because each layer attends over both.
    Defaults of the sampler (`steps`, `noise`, `sampling`, `decode`, `alpha_infer`) can be changed at run time.
    """

    # Observation side
    views: tuple[str, ...] = ("base", "wrist")
    image_size: int = 64  # px, square
    max_text_tokens: int = 48
    vocab_size: int = 1024
    proprio_dim: int = 8
    proprio_form: ProprioForm = "token"
    proprio_bins: int = 256  # for the special tokens
    mask_absent_views: bool = True  # False: black views are attended, as the release does

    # Vision tower
    vision: VisionKind = "conv"
    patch_size: int = 16  # px
    vision_width: int = 128
    vision_depth: int = 0  # transformer layers; the conv stem can do without
    vision_heads: int = 4
    vision_mlp: int = 256

    # Backbone and expert
    width: int = 128
    mlp: int = 256
    expert_width: int = 128
    expert_mlp: int = 256
    depth: int = 3
    heads: int = 4
    kv_heads: int = 1
    head_dim: int = 32
    rope_theta: float = 10000.0

    # Action side
    prediction_horizon: int = 8  # rows H
    action_dim: int = 8  # real dimensions D, no padding
    bins: int = 256
    bin_decode: BinDecode = "mid"
    token_layout: TokenLayout = "dim_token"  # a token per (row, dimension), or per row
    position_embedding: bool = True  # learned embedding of (row, dimension) on the action tokens
    hybrid_continuous: bool = False  # a block of continuous flow-matching tokens before the discrete ones
    time_cond: TimeCond = "adarms"
    head: Head = "e0"  # the others answer in one pass, to compare with (`heads.py`)

    # Diffusion
    alpha_train: float = 1.0  # one-hot smoothing, eq. 4
    alpha_infer: float = 1.0
    noise: Noise = "fixed"
    noise_schedule: NoiseSchedule = "tau"  # none: alpha * onehot + noise, as the release does
    sampling: Sampling = "argmax"
    steps: int = 10  # N
    decode: Decode = "token"  # how the last step is read; see `SamplerSettings`

    # Training side of the forward pass
    committed_max: int = 0  # clean prefix rows drawn in training from 0..committed_max
    insulate: bool = False  # knowledge insulation: no gradient from the expert into prefix keys and values

    def __post_init__(self) -> None:
        for f in fields(self):
            _check_type(f.name, getattr(self, f.name), typing.get_type_hints(E0Config)[f.name])
        for name, low, high in _BOUNDS:
            _require(low <= getattr(self, name) <= high, name, getattr(self, name), f"{low} to {high}")
        _require(1 <= len(self.views) == len(set(self.views)), "views", self.views, "one or more different names")
        _require(self.image_size % self.patch_size == 0, "image_size", self.image_size, _multiple(self.patch_size))
        _require(
            self.vision_width % self.vision_heads == 0, "vision_width", self.vision_width, _multiple(self.vision_heads)
        )
        _require(self.heads % self.kv_heads == 0, "heads", self.heads, _multiple(self.kv_heads))
        _require(self.head_dim % 2 == 0, "head_dim", self.head_dim, "an even number")
        below = self.prediction_horizon - 1
        _require(self.committed_max <= below, "committed_max", self.committed_max, f"0 to {below}, below the horizon")
        if self.head != "e0":
            _require(self.steps == 1, "steps", self.steps, f"1 with head {self.head!r}, which answers in one pass")
            _require(not self.hybrid_continuous, "hybrid_continuous", True, f"false with head {self.head!r}")
        if self.vision == "conv":
            allowed = "16 (the conv stem halves the image four times)"
            _require(self.patch_size == 16, "patch_size", self.patch_size, allowed)

    @property
    def tokens_per_row(self) -> int:
        """Expert tokens per row of the chunk: one per dimension, or one."""
        return self.action_dim if self.token_layout == "dim_token" else 1

    @property
    def action_tokens(self) -> int:
        """Discrete expert tokens of a whole chunk."""
        return self.prediction_horizon * self.tokens_per_row

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` inverts it."""
        return {**asdict(self), "views": list(self.views)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> E0Config:
        """Build from plain values (JSON, YAML).

        Raises:
            ModelConfigError: unknown field (the closest one is named), or a wrong value.

        """
        known = [f.name for f in fields(E0Config)]
        for name in values:
            _require(name in known, "field", name, _closest(str(name), known))
        ready = dict(values)
        if isinstance(ready.get("views"), list):
            ready["views"] = tuple(ready["views"])
        return E0Config(**ready)


def preset(name: str, **changes: Any) -> E0Config:
    """A preset configuration by name (`nano`, `small`, `full`, `released`), with fields changed.

    Raises:
        ModelConfigError: unknown preset or field, or a wrong value.

    """
    _require(name in PRESETS, "preset", name, _closest(name, list(PRESETS)))
    return E0Config.from_dict({**PRESETS[name].to_dict(), **changes})


def _check_type(name: str, value: Any, kind: Any) -> None:
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        _require(value in choices, name, value, _closest(str(value), [str(c) for c in choices]))
    elif kind == tuple[str, ...]:
        good = isinstance(value, tuple) and all(isinstance(v, str) and v for v in value)
        _require(good, name, value, "a tuple of names")
    elif kind is float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
        _require(good, name, value, "a number")
    else:
        _require(type(value) is kind, name, value, f"of type {kind.__name__}")


def _require(good: bool, name: str, value: object, allowed: str) -> None:
    if not good:
        raise ModelConfigError(f"E0Config.{name} is {value!r}; allowed is {allowed}")


def _multiple(of: int) -> str:
    return f"a multiple of {of}"


def _closest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"one of {', '.join(known)}" + (f"; did you mean {close[0]!r}?" if close else "")


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("image_size", 16, 1024),
    ("max_text_tokens", 1, 1024),
    ("vocab_size", 2, 1_000_000),
    ("proprio_dim", 1, 256),
    ("proprio_bins", 2, 65536),
    ("patch_size", 4, 64),
    ("vision_width", 8, 8192),
    ("vision_depth", 0, 128),
    ("vision_heads", 1, 128),
    ("vision_mlp", 8, 65536),
    ("width", 8, 16384),
    ("mlp", 8, 65536),
    ("expert_width", 8, 16384),
    ("expert_mlp", 8, 65536),
    ("depth", 1, 128),
    ("heads", 1, 128),
    ("kv_heads", 1, 128),
    ("head_dim", 2, 1024),
    ("rope_theta", 1.0, 1e9),
    ("prediction_horizon", 1, 256),
    ("action_dim", 1, 64),
    ("bins", 2, 65536),
    ("alpha_train", 1e-3, 100.0),
    ("alpha_infer", 1e-3, 100.0),
    ("steps", 1, 1000),
    ("committed_max", 0, 255),
)

_FULL = E0Config(
    image_size=224,
    vocab_size=257152,
    max_text_tokens=96,
    vision="siglip",
    patch_size=14,
    vision_width=1152,
    vision_depth=27,
    vision_heads=16,
    vision_mlp=4304,
    width=2048,
    mlp=16384,
    expert_width=1024,
    expert_mlp=4096,
    depth=18,
    heads=8,
    kv_heads=1,
    head_dim=256,
    prediction_horizon=10,
    bins=2048,
    position_embedding=False,
)

PRESETS: dict[str, E0Config] = {
    "nano": E0Config(),
    "small": E0Config(
        image_size=128,
        vision_width=256,
        vision_depth=1,
        vision_heads=4,
        vision_mlp=512,
        width=384,
        mlp=768,
        expert_width=384,
        expert_mlp=768,
        depth=6,
        heads=6,
        head_dim=64,
        prediction_horizon=16,
        bins=512,
    ),
    "full": _FULL,
    "released": replace(
        _FULL,
        views=("base", "left_wrist", "right_wrist"),
        mask_absent_views=False,
        proprio_form="text",
        action_dim=32,
        bin_decode="lower",
        hybrid_continuous=True,
        alpha_infer=0.1,
        noise_schedule="none",
    ),
}
"""Named configurations."""
