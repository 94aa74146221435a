"""A machine that holds what a test puts there: files, programs' answers, ROS 2 prefixes, topics."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np

from e0_ros.core.take import Samples, Take
from e0_ros.doctor.machine import Machine, Output

GB = 10**9


class Fake:
    """Starts as a machine on which nothing can be seen."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.prefix = folder, folder / "root", folder / "prefix"
        self.root.mkdir()
        self.prefix.mkdir()
        self.environ: dict[str, str] = {}
        self.python = (3, 12)
        self.programs: dict[str, Output] = {}
        self.commands: list[tuple[str, ...]] = []
        self.free: int | None = None
        self.take: Take | None = None

    def file(self, path: str, text: str) -> Fake:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n")
        return self

    def answers(self, program: str, out: str, status: int = 0, err: str = "") -> Fake:
        self.programs[program] = Output(status, out, err)
        return self

    def wheels(self) -> Fake:
        self.site("ros_wheels_bootstrapper-1.dist-info")
        return self

    def site(self, name: str) -> Fake:
        (self.prefix / "lib/python3.12/site-packages" / name).mkdir(parents=True)
        return self

    def install(self, *packages: str, distro: str = "jazzy", **versions: str) -> Fake:
        """A sourced ROS 2 install that holds rclpy, some packages, and some packages of a version."""
        prefix = self.folder / distro
        for name in ("rclpy", *packages, *versions):
            marker = prefix / "share/ament_index/resource_index/packages" / name
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        for name, version in versions.items():
            (prefix / "share" / name).mkdir(parents=True)
            (prefix / "share" / name / "package.xml").write_text(f"<package><version>{version}</version></package>")
        self.environ |= {"AMENT_PREFIX_PATH": str(prefix), "ROS_DISTRO": distro}
        return self

    def camera(self, port: str, speed: int, bus: int) -> Fake:
        folder = f"/sys/bus/usb/devices/{port}"
        self.file(f"{folder}/idVendor", "8086").file(f"{folder}/speed", str(speed)).file(f"{folder}/busnum", str(bus))
        return self.file(f"{folder}/product", "Intel(R) RealSense(TM) Depth Camera 435i")

    def yaml(self, text: str) -> str:
        path = self.folder / "controllers.yaml"
        path.write_text(text)
        return str(path)

    def checkpoint(
        self,
        weights: int = 1000,
        held: int | None = None,
        views: tuple[str, ...] = ("base", "wrist"),
        representation: str = "joint_position",
    ) -> str:
        folder = self.folder / "checkpoint"
        folder.mkdir()
        card = {"weights_sha256": "a" * 64, "sha256": "b" * 64, "embodiment": "fr3", "execution_horizon": 8,
                "model": {"views": views, "image_size": 64}, "training": {}, "representation": representation,
                "transform": {"actions": {"names": ["dx", "gripper"]}}}  # fmt: skip
        (folder / "config.json").write_text(json.dumps(card))
        header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, weights]}}).encode()
        with (folder / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + (weights if held is None else held))
        return str(folder)

    def bag(self, mb: float, seconds: float) -> str:
        folder = self.folder / "bags/one"
        folder.mkdir(parents=True)
        (folder / "metadata.yaml").write_text(
            f"rosbag2_bagfile_information: {{duration: {{nanoseconds: {round(seconds * 1e9)}}}}}"
        )
        with (folder / "one.mcap").open("wb") as file:
            file.truncate(round(mb * 1e6))
        return str(folder.parent)

    def machine(self) -> Machine:
        def program(command, timeout_s):
            self.commands.append(tuple(command))
            return self.programs.get("vulkan" if "sim.vulkan" in " ".join(command) else command[0])

        return Machine(
            self.root, self.environ, str(self.prefix), self.python, program, lambda path: self.free,
            lambda streams, seconds: self.take,
        )  # fmt: skip


def stream(rate_hz: float, seconds: float, offset_ms: float = 0.0, received_ms: float = 1.0) -> Samples:
    """A steady stream whose every picture differs."""
    stamps = (np.arange(round(rate_hz * seconds)) * 1e9 / rate_hz + offset_ms * 1e6).astype(np.int64) + 10**18
    prints = np.arange(len(stamps), dtype=np.int64)
    received = stamps + round(received_ms * 1e6)
    return Samples(stamps, received, prints, np.empty(0, np.int64), np.empty((0, 0)))


def uneven(rate_hz: float, seconds: float, late_ms: float) -> Samples:
    """As `stream`, but every tenth picture comes late."""
    made = stream(rate_hz, seconds)
    late = np.where(np.arange(len(made.stamps_ns)) % 10 == 0, round(late_ms * 1e6), 0)
    return replace(made, received_ns=made.received_ns + late)


def frozen(rate_hz: float, seconds: float, still_s: float) -> Samples:
    """As `stream`, but the pictures stand still at the end."""
    made, still = stream(rate_hz, seconds), round(rate_hz * still_s)
    return replace(made, fingerprints=np.minimum(made.fingerprints, len(made.fingerprints) - still))


def holed(rate_hz: float, seconds: float, hole_s: float) -> Samples:
    """As `stream`, with nothing for a while in its middle."""
    made, middle = stream(rate_hz, seconds), rate_hz * seconds / 2
    kept = np.abs(np.arange(len(made.stamps_ns)) - middle) > rate_hz * hole_s / 2
    return replace(made, **{k: getattr(made, k)[kept] for k in ("stamps_ns", "received_ns", "fingerprints")})


def take(seconds: float = 5.0, **streams: Samples) -> Take:
    """Two cameras, joints and gripper without a fault, but for what is given."""
    good = {"base": stream(30, seconds), "wrist": stream(30, seconds), "joints": stream(1000, seconds),
            "gripper": stream(15, seconds)}  # fmt: skip
    return Take({**good, **streams}, 10**18, 10**18 + round(seconds * 1e9))
