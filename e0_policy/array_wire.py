"""Dictionaries of arrays as bytes: the format of openpi's policy servers, read with every size checked.

MessagePack, where an array is `{b"__ndarray__": True, b"data": bytes, b"dtype": str, b"shape": [...]}` in C order and a
numpy scalar `{b"__npgeneric__": True, b"data": value, b"dtype": str}` (openpi, `openpi_client/msgpack_numpy.py`).
Nothing in it can name code to be run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

MAX_BYTES = 64 * 1024 * 1024
"""Largest message that is read."""
_MAX_ITEMS, _MAX_DIMENSIONS = 65_536, 8
_KINDS = "biuf"
_ARRAY, _SCALAR, _DATA, _TYPE, _SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"


class WireError(ValueError):
    """A message cannot be written or read; the text says what was got."""


def pack(values: Mapping[str, Any]) -> bytes:
    """A mapping of texts, numbers, lists, mappings and arrays (booleans, integers, floats) as bytes.

    Raises:
        WireError: something else is in it.

    """
    try:
        data: bytes = msgpack.packb(values, default=_plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"cannot be sent: {error}") from None
    return data


def unpack(data: bytes) -> dict[str, Any]:
    """The mapping that `pack` was given; arrays are read-only views of `data`.

    Raises:
        WireError: too long, torn, no mapping, or an array whose type, shape and bytes do not fit.

    """
    if len(data) > MAX_BYTES:
        raise WireError(f"a message of {len(data)} bytes; at most {MAX_BYTES} are read")
    limits = dict.fromkeys(("max_array_len", "max_map_len"), _MAX_ITEMS)
    try:
        values = msgpack.unpackb(data, object_hook=_array, **limits)
    except WireError:
        raise
    except Exception as error:  # whatever MessagePack finds in bytes of others
        raise WireError(f"not a message of a policy server: {type(error).__name__}: {error}") from None
    if not isinstance(values, dict):
        raise WireError(f"a message is a {type(values).__name__}; a mapping is needed")
    return values


def _plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value).__name__} is neither a number, a text nor an array")
    if value.dtype.kind not in _KINDS:
        raise TypeError(f"an array of {value.dtype}; booleans, integers and floats are allowed")
    if isinstance(value, np.ndarray):
        return {_ARRAY: True, _DATA: value.tobytes(), _TYPE: value.dtype.str, _SHAPE: value.shape}
    return {_SCALAR: True, _DATA: value.item(), _TYPE: value.dtype.str}


def _array(values: dict[Any, Any]) -> Any:
    if _ARRAY in values:
        kind, data = _dtype(values), values.get(_DATA)
        shape: Any = values.get(_SHAPE)
        whole = isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS and all(type(n) is int for n in shape)
        if not whole or min(shape, default=0) < 0 or not isinstance(data, bytes):
            raise WireError(f"an array of shape {str(shape)[:80]}; a few numbers, 0 and up, are needed")
        if math.prod(shape) * kind.itemsize != len(data):
            raise WireError(f"an array {kind} {shape} in {len(data)} bytes; {math.prod(shape) * kind.itemsize} needed")
        return np.frombuffer(data, kind).reshape(shape)
    if _SCALAR in values:
        kind, value = _dtype(values), values.get(_DATA)
        if not isinstance(value, bool | int | float):
            raise WireError(f"a number is a {type(value).__name__}")
        return kind.type(value)
    return values


def _dtype(values: Mapping[Any, Any]) -> np.dtype[Any]:
    name = values.get(_TYPE)
    try:
        kind = np.dtype(name if isinstance(name, str) and len(name) <= 8 else "O")
    except TypeError:
        kind = np.dtype("O")
    if kind.kind not in _KINDS:
        raise WireError(f"an array of type {str(name)[:40]!r}; booleans, integers and floats are read")
    return kind
