"""What `e0 calibrate` measured on a bench and `calibration:=` uses: latencies, and where the cameras are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from e0_policy.files import write_whole
from e0_policy.types import FloatArray
from e0_ros.config import ConfigError, closest, load_yaml
from e0_ros.core.camera_model import pose_matrix, quaternion_xyzw

MOST_LAG_MS = 300.0
"""Lag of an arm that plans are followed ahead by [ms]."""
_KEYS = ("arm_lag_ms", "camera_latency_ms", "cameras")
_HEAD = "# A bench as it was measured; e0 calibrate writes this, calibration:=FILE uses it.\n"


@dataclass(frozen=True)
class CameraPlace:
    """Where a camera is: `T_parent_optical` `(4, 4)`, parent `base` or `flange`, and the error that was left [px]."""

    parent: str
    pose: FloatArray
    error_px: float = 0.0


@dataclass(frozen=True)
class BenchCalibration:
    """What is known; what is not measured yet is absent."""

    arm_lag_ms: float | None = None
    camera_latency_ms: Mapping[str, float] = field(default_factory=dict)
    cameras: Mapping[str, CameraPlace] = field(default_factory=dict)

    def latencies_ms(self, views: tuple[str, ...]) -> tuple[float, ...]:
        """Per view; those that were not measured count as 0. Empty if none was."""
        if not self.camera_latency_ms:
            return ()
        return tuple(self.camera_latency_ms.get(view, 0.0) for view in views)


def read_bench(path: Path) -> BenchCalibration:
    """Read a bench's file.

    Raises:
        ConfigError: it cannot be read, or something in it is unknown or wrong.

    """
    data = load_yaml(path)
    for key in data:
        if key not in _KEYS:
            raise ConfigError(f"{path}: unknown key {key!r}{closest(str(key), _KEYS)}")
    try:
        lag = data.get("arm_lag_ms")
        return BenchCalibration(
            None if lag is None else _bounded("arm_lag_ms", lag, 0.0, MOST_LAG_MS),
            {str(v): _bounded(f"camera_latency_ms.{v}", ms, -500.0, 500.0)
             for v, ms in (data.get("camera_latency_ms") or {}).items()},
            {str(view): _place(view, told) for view, told in (data.get("cameras") or {}).items()},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def write_bench(path: Path, bench: BenchCalibration) -> None:
    """Write a bench's file, whole or not at all."""
    data: dict[str, Any] = {}
    if bench.arm_lag_ms is not None:
        data["arm_lag_ms"] = round(bench.arm_lag_ms, 2)
    if bench.camera_latency_ms:
        data["camera_latency_ms"] = {view: round(ms, 2) for view, ms in bench.camera_latency_ms.items()}
    if bench.cameras:
        data["cameras"] = {view: _told(place) for view, place in bench.cameras.items()}
    write_whole(path, _HEAD + yaml.safe_dump(data, sort_keys=False, default_flow_style=None))


def updated(path: Path, **changes: Any) -> BenchCalibration:
    """The file's calibration, or an empty one, with what was measured now; maps are merged.

    Raises:
        ConfigError: the file is there and wrong.

    """
    bench = read_bench(path) if path.exists() else BenchCalibration()
    for name, value in changes.items():
        before = getattr(bench, name)
        merged: Any = {**before, **value} if isinstance(before, Mapping) else value
        bench = replace(bench, **{name: merged})
    return bench


def _told(place: CameraPlace) -> dict[str, Any]:
    return {
        "parent": place.parent,
        "position_m": [round(float(x), 6) for x in place.pose[:3, 3]],
        "quaternion_xyzw": [round(float(x), 9) for x in quaternion_xyzw(place.pose[:3, :3])],
        "error_px": round(place.error_px, 3),
    }


def _place(view: str, told: Any) -> CameraPlace:
    if told["parent"] not in ("base", "flange"):
        raise ValueError(f"cameras.{view}.parent is {told['parent']!r}; base or flange is needed")
    if len(told["position_m"]) != 3 or len(told["quaternion_xyzw"]) != 4:
        raise ValueError(f"cameras.{view}: 3 numbers of position_m and 4 of quaternion_xyzw are needed")
    return CameraPlace(
        str(told["parent"]), pose_matrix(told["position_m"], told["quaternion_xyzw"]), float(told.get("error_px", 0.0))
    )


def _bounded(name: str, value: Any, low: float, high: float) -> float:
    number = float(value)
    if not np.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{name} is {value}; allowed is {low} to {high}")
    return number
