"""Settings: one frozen dataclass beside the code that uses it feeds ROS parameters, YAML, the CLI and the tests.

@dataclass(frozen=True)
class SyncConfig:
tolerance_ms: float = setting(15.0, "largest skew between two views", unit="ms", low=0.0, high=500.0)

def __post_init__(self) -> None:
check(self)

from_mapping(SyncConfig, {"tolerence_ms": 3.0}, "sim.yaml")
# ConfigError: sim.yaml: unknown setting 'tolerence_ms'; did you mean 'tolerance_ms'?
"""

from __future__ import annotations

import argparse
import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting is unknown or out of bounds; the message says what was got, what is allowed and where."""


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] | None = None,
) -> Any:
    """Declare a setting: default, meaning in words, unit, inclusive bounds or allowed values."""
    metadata: dict[str, Any] = {"meaning": meaning, "unit": unit, "low": low, "high": high}
    metadata["choices"] = tuple(choices) if choices is not None else None
    return field(default=default, metadata=metadata)


def closest(name: str, known: Iterable[str]) -> str:
    """Hint with the closest valid name, or with all of them: `"; did you mean 'x'?"`."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; allowed are {', '.join(known)}"


def setting_types(cls: type) -> dict[str, Any]:
    """Resolved type of every setting of a configuration class."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def check(config: Any) -> None:
    """Check every setting of a configuration; call it from `__post_init__`.

    Raises:
        ConfigError: wrong type, not finite, out of bounds, or not among the choices.

    """
    for f in fields(config):
        kind = setting_types(type(config))[f.name]
        _check_value(f"{type(config).__name__}.{f.name}", getattr(config, f.name), kind, f.metadata)


def _check_value(name: str, value: Any, kind: Any, metadata: Mapping[str, Any]) -> None:
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            raise ConfigError(f"{name} is {value!r}; a list is needed")
        for item in value:
            _check_value(name, item, typing.get_args(kind)[0], metadata)
        return
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{name} is {value!r} ({type(value).__name__}); {kind.__name__} is needed")
    if kind is float and math.isnan(value):
        raise ConfigError(f"{name} is NaN; a number is needed")
    low, high, choices = metadata.get("low"), metadata.get("high"), metadata.get("choices")
    if choices and value not in choices:
        raise ConfigError(f"{name} is {value!r}{closest(str(value), choices)}")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigError(f"{name} is {value}{metadata['unit'] and ' ' + metadata['unit']}; allowed is {low} to {high}")


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a configuration from plain values (YAML, JSON); ints serve as floats and lists as tuples.

    Raises:
        ConfigError: an unknown key (the closest one is named) or a wrong value; `where` heads the message.

    """
    kinds = setting_types(cls)
    ready: dict[str, Any] = {}
    for key, value in values.items():
        if key not in kinds:
            raise ConfigError(f"{where}: unknown setting {key!r}{closest(str(key), kinds)}")
        ready[key] = _coerce(value, kinds[key])
    try:
        return cls(**ready)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None


def _coerce(value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        return tuple(_coerce(item, typing.get_args(kind)[0]) for item in value if item != "")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping safely.

    Raises:
        ConfigError: no such file, not YAML, or not a mapping.

    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a mapping of settings is needed, got {type(data).__name__}")
    return data


def to_mapping(config: Any) -> dict[str, Any]:
    """Plain values of a configuration, as `from_mapping` takes them (tuples become lists)."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def declare_parameters(node: Any, cls: type[T]) -> T:
    """Declare every setting as a read-only, described ROS parameter of `node` and return the configuration.

    An empty tuple is declared as `[""]`, because a ROS parameter cannot hold an empty list without a type; another
    value of it may be of any type, and is checked as everything is.
    """
    from rcl_interfaces.msg import ParameterDescriptor

    values: dict[str, Any] = {}
    for f in fields(cls):  # type: ignore[arg-type]
        default = list(f.default) or [""] if isinstance(f.default, tuple) else f.default
        descriptor = ParameterDescriptor(description=describe(f), read_only=True, dynamic_typing=default == [""])
        values[f.name] = node.declare_parameter(f.name, default, descriptor).value
    return from_mapping(cls, values, f"parameters of {node.get_name()}")


def describe(f: Any) -> str:
    """One line on a setting: meaning, unit, bounds or choices."""
    m = f.metadata
    parts = [m.get("meaning", "")]
    if m.get("unit"):
        parts.append(f"[{m['unit']}]")
    if m.get("choices"):
        parts.append(f"({' | '.join(m['choices'])})")
    elif m.get("low") is not None or m.get("high") is not None:
        parts.append(f"({m.get('low')} to {m.get('high')})")
    return " ".join(parts)


def add_arguments(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add `--name VALUE` for every setting (`--name`/`--no-name` for booleans), documented with its default."""
    for f in fields(cls):
        kind = setting_types(cls)[f.name]
        flag, text = "--" + f.name.replace("_", "-"), f"{describe(f)} (default: {f.default})"
        text = text.replace("%", "%%")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=f.default, help=text)
        elif typing.get_origin(kind) is tuple:
            parser.add_argument(flag, nargs="*", type=typing.get_args(kind)[0], default=f.default, help=text)
        else:
            default = None if f.default is MISSING else f.default
            parser.add_argument(flag, type=kind, default=default, help=text)


def from_arguments(cls: type[T], arguments: argparse.Namespace) -> T:
    """Build a configuration from what `add_arguments` parsed."""
    values = {f.name: getattr(arguments, f.name) for f in fields(cls)}  # type: ignore[arg-type]
    return from_mapping(cls, values, "command line")
