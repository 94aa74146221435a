"""Everything that a training run depends on, from a YAML file; an unknown key is an error with the closest one."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from e0_policy.augmentation import AugmentationConfig, AugmentationError, Camera
from e0_policy.lerobot_layout import Layout
from e0_policy.model_config import E0Config, preset

MAX_CONFIG_BYTES = 1024 * 1024


class TrainConfigError(ValueError):
    """A training configuration is wrong; the message says what was got, what is allowed and where."""


@dataclass(frozen=True)
class DataFolder:
    """A LeRobotDataset v3.0 or packed folder; `layout` says where a dataset of others keeps what we need."""

    folder: str
    layout: Layout = field(default_factory=Layout)


@dataclass(frozen=True)
class TrainConfig:
    """A training run. `batch_size` counts over all processes and accumulated micro-batches."""

    model: E0Config = field(default_factory=lambda: preset("nano"))
    output: str = "runs/nano"
    seed: int = 0

    # Data
    data: str | tuple[str | DataFolder, ...] = "synthetic"  # or a folder of demonstrations, or several
    instructions: tuple[str, ...] = ()  # only episodes whose instruction is like one of these (* and ?); empty: all
    decode: Literal["once", "always"] = "once"  # images into arrays on the disk, or from the videos each time
    cache_dir: str = ""  # of those arrays; empty: beside each folder
    synthetic_episodes: int = 200
    validation_fraction: float = 0.1
    relative_actions: bool = True  # joints relative to the proprioception; gripper and steps stay as they are
    normalization: Literal["quantile", "mean_std"] = "quantile"
    per_row_statistics: bool = False
    quantile_low: float = 0.01
    quantile_high: float = 0.99
    constant_dimensions: Literal["error", "hold"] = "error"
    text_tokenizer: str = ""  # PaliGemma's tokenizer.json or tokenizer.model; empty: words of the instructions
    # Leave out frames at which the command moves less from the one before; 0 keeps all. Slow motion goes too and leaves
    # a jump: a training says at its start how many frames went, and how far that was.
    drop_idle_rad: float = 0.0
    view_dropout: float = 0.0
    augment: bool = True
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    cameras: Mapping[str, Camera] = field(default_factory=dict)
    workers: int = 0  # processes that read data

    # Optimisation
    batch_size: int = 64
    micro_batch: int = 0  # samples per process and forward pass; 0: no accumulation
    steps: int = 3000
    warmup_steps: int = 100
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-4
    weight_decay: float = 1e-10
    clip_norm: float = 1.0
    ema: float = 0.995
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    compiled: bool = False  # torch.compile of the layers, on a GPU also of the encoder; on a CPU it needs g++
    parallel: Literal["ddp", "fsdp"] = "ddp"
    device: str = "auto"
    initial_weights: str = (
        ""  # safetensors of PaliGemma, pi0, pi0.5 or E0; or an own checkpoint, whose transform is kept
    )
    execution_horizon: int = 4  # rows meant to run before the next plan, for the checkpoint

    # Knowledge insulation: a next-token loss of the backbone beside the diffusion loss
    action_writing: Literal["none", "naive", "fast"] = "none"
    writing_vocabulary: int = 256
    writing_stride: int = 1  # rows, naive only
    writing_weight: float = 1.0

    # A second loss: to locate things in the random scenes of `e0 scenes`
    auxiliary_scenes: str = ""  # their folder; empty: none
    auxiliary_weight: float = 0.3
    auxiliary_batch: int = 32  # scenes per step with this loss
    auxiliary_every: int = 1  # steps

    # Reports
    log_every: int = 10
    validate_every: int = 500
    validation_samples: int = 64
    save_every: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(TrainConfig)
        for f in fields(self):
            value, kind = getattr(self, f.name), hints[f.name]
            if typing.get_origin(kind) is Literal:
                choices = typing.get_args(kind)
                _require(value in choices, f.name, value, f"one of {', '.join(choices)}")
            elif kind in (int, float, bool, str):
                fits = type(value) is kind or (kind is float and type(value) is int)
                _require(fits, f.name, value, f"of type {kind.__name__}")
        for name, low, high in _BOUNDS:
            _require(low <= getattr(self, name) <= high, name, getattr(self, name), f"{low:g} to {high:g}")
        _require(self.quantile_low < self.quantile_high, "quantile_low", self.quantile_low, "below quantile_high")
        _require(self.warmup_steps <= self.steps, "warmup_steps", self.warmup_steps, f"0 to steps ({self.steps})")
        if self.micro_batch:
            good = self.batch_size % self.micro_batch == 0
            _require(good, "micro_batch", self.micro_batch, f"a divisor of batch_size ({self.batch_size})")
        horizon = self.model.prediction_horizon
        _require(1 <= self.execution_horizon <= horizon, "execution_horizon", self.execution_horizon, f"1 to {horizon}")
        if self.model.insulate:
            _require(self.action_writing != "none", "action_writing", "none", "naive or fast with model.insulate")

    @property
    def folders(self) -> tuple[DataFolder, ...]:
        """The folders of `data`; none for the synthetic task."""
        if self.data == "synthetic":
            return ()
        entries = (self.data,) if isinstance(self.data, str) else self.data
        return tuple(DataFolder(entry) if isinstance(entry, str) else entry for entry in entries)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `from_mapping` takes them."""
        values = asdict(self)
        values["model"] = self.model.to_dict()
        values["augmentation"]["wrist_views"] = list(self.augmentation.wrist_views)
        values["instructions"] = list(self.instructions)
        if not isinstance(self.data, str):
            values["data"] = [d if isinstance(d, str) else {"folder": d.folder, **_plain(d.layout)} for d in self.data]
        return values


class _Loader(yaml.SafeLoader):
    """Plain YAML in which `1e-3` is a number, as in YAML 1.2; PyYAML takes it for a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str) -> Any:
    """Plain values.

    Raises:
        yaml.YAMLError: not YAML, or more than plain values.

    """
    return yaml.load(text, _Loader)


def load_config(path: Path, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a YAML file, and change settings by dotted name (`{"model.depth": 2}`).

    Raises:
        TrainConfigError: no such file, not YAML, an unknown key, or a wrong value.

    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise TrainConfigError(f"{path} has {path.stat().st_size} bytes; allowed are {MAX_CONFIG_BYTES}")
        data = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except yaml.YAMLError as error:
        raise TrainConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise TrainConfigError(f"{path}: a mapping of settings is needed, got {type(data).__name__}")
    for name, value in (changes or {}).items():
        section = data
        *parents, last = name.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise TrainConfigError(f"{name}: {parent} is no section")
        section[last] = value
    return from_mapping(data, str(path))


def from_mapping(data: Mapping[str, Any], where: str) -> TrainConfig:
    """Build a configuration from plain values.

    Raises:
        TrainConfigError: an unknown key (the closest one is named) or a wrong value; `where` heads the message.

    """
    values = dict(data)
    _known(values, [f.name for f in fields(TrainConfig)], where)
    try:
        if "model" in values:
            changes = dict(values["model"])
            values["model"] = preset(changes.pop("preset", "nano"), **changes)
        if "augmentation" in values:
            augmentation = dict(values["augmentation"])
            _known(augmentation, [f.name for f in fields(AugmentationConfig)], f"{where}: augmentation")
            if "wrist_views" in augmentation:
                augmentation["wrist_views"] = tuple(augmentation["wrist_views"])
            values["augmentation"] = AugmentationConfig(**augmentation)
        if "cameras" in values:
            values["cameras"] = _cameras(values["cameras"], where)
        if not isinstance(values.get("data", ""), str):
            values["data"] = _folders(values["data"], where)
        if "instructions" in values:
            values["instructions"] = _texts(values["instructions"], "instructions", where)
        return TrainConfig(**values)
    except TrainConfigError as error:
        raise TrainConfigError(f"{where}: {error}" if where not in str(error) else str(error)) from None
    except (ValueError, TypeError) as error:
        raise TrainConfigError(f"{where}: {error}") from None


def _folders(values: Any, where: str) -> tuple[str | DataFolder, ...]:
    """Entries of `data`: folders, or mappings of `folder` and the fields of `Layout`."""
    known, found = [f.name for f in fields(Layout)], list[str | DataFolder]()
    for entry in values if isinstance(values, Sequence) else [values]:
        if isinstance(entry, Mapping) and isinstance(entry.get("folder"), str):
            settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
            folder = settings.pop("folder")
            _known(settings, known, f"{where}: data")
            found.append(DataFolder(folder, Layout(**settings)))
        elif isinstance(entry, str):
            found.append(entry)
        else:
            raise TrainConfigError(
                f"{where}: data has {entry!r}; needed is a folder, or folder: with {', '.join(known)}"
            )
    if not found:
        raise TrainConfigError(f"{where}: data is empty; needed is at least one folder")
    return tuple(found)


def _texts(values: Any, name: str, where: str) -> tuple[str, ...]:
    if isinstance(values, str):
        return (values,)
    if not isinstance(values, Sequence) or not all(isinstance(v, str) for v in values):
        raise TrainConfigError(f"{where}: {name} is {values!r}; needed are texts")
    return tuple(values)


def _plain(layout: Layout) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(layout).items()}


def _cameras(values: Any, where: str) -> dict[str, Camera]:
    if not isinstance(values, Mapping):
        raise TrainConfigError(f"{where}: cameras is {values!r}; needed are intrinsics by view")
    return {name: _camera(name, camera, where) for name, camera in values.items()}


def _camera(name: str, values: Any, where: str) -> Camera:
    known = [f.name for f in fields(Camera)]
    if not isinstance(values, Mapping):
        raise TrainConfigError(f"{where}: cameras.{name} is {values!r}; needed are {', '.join(known)}")
    _known(values, known, f"{where}: cameras.{name}")
    if missing := [key for key in known if key not in values]:
        raise TrainConfigError(f"{where}: cameras.{name} lacks {', '.join(missing)}")
    try:
        return Camera(**values)
    except AugmentationError as error:
        raise TrainConfigError(f"{where}: cameras.{name}: {error}") from None


def _known(values: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"allowed are {', '.join(known)}"
            raise TrainConfigError(f"{where}: unknown setting {key!r}; {hint}")


def _require(good: bool, name: str, value: object, allowed: str) -> None:
    if not good:
        raise TrainConfigError(f"{name} is {value!r}; allowed is {allowed}")


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("seed", 0, 2**31 - 1),
    ("synthetic_episodes", 2, 1_000_000),
    ("validation_fraction", 0.0, 0.9),
    ("quantile_low", 0.0, 0.5),
    ("quantile_high", 0.5, 1.0),
    ("drop_idle_rad", 0.0, 1.0),
    ("view_dropout", 0.0, 0.9),
    ("workers", 0, 256),
    ("batch_size", 1, 1_000_000),
    ("micro_batch", 0, 1_000_000),
    ("steps", 1, 100_000_000),
    ("warmup_steps", 0, 10_000_000),
    ("learning_rate", 1e-9, 10.0),
    ("final_learning_rate", 0.0, 10.0),
    ("weight_decay", 0.0, 1.0),
    ("clip_norm", 1e-6, 1e6),
    ("ema", 0.0, 0.999999),
    ("writing_vocabulary", 16, 4094),
    ("writing_stride", 1, 256),
    ("writing_weight", 0.0, 1000.0),
    ("auxiliary_weight", 0.0, 1000.0),
    ("auxiliary_batch", 1, 100_000),
    ("auxiliary_every", 1, 1_000_000),
    ("log_every", 1, 1_000_000),
    ("validate_every", 1, 100_000_000),
    ("validation_samples", 1, 1_000_000),
    ("save_every", 1, 100_000_000),
    ("keep", 1, 1000),
)
