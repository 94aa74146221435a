"""Checks of disk, GPU, checkpoint and renderer."""

from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path

import yaml

from e0_ros.config import ConfigError
from e0_ros.doctor.finding import Bench, Finding, green, grey, red, yellow
from e0_ros.doctor.machine import Machine
from e0_ros.policies import Card, check_rows, read_card

LEAST_MIN, SHORT_MIN = 10.0, 60.0
JPEG_BYTES = 0.4
"""Bytes per pixel of a camera image as the recorder stores it by default (jpeg, quality 95), generously."""
STATE_BYTES = 600_000
"""Bytes per second of joint states at 1 kHz and all else but images."""
NEWEST = 5
WEIGHTS = "model.safetensors"
MAX_HEADER_BYTES = 100_000_000
OVERHEAD_BYTES = 2 << 30
"""Beside the weights: the runtime's context, activations of a chunk, the cached prefix."""
_VULKAN = (
    "import json\nfrom sim.vulkan import find\nd = find()\n"
    "print(json.dumps(d and {'device': d.device, 'cpu': d.cpu, 'manifest': str(d.manifest)}))"
)


def disk(machine: Machine, bench: Bench) -> Finding:
    """Minutes of recording that fit where the bags go, at the rate of the newest bags."""
    folder = Path(bench.bag_dir).resolve()
    free = machine.free(next(p for p in (folder, *folder.parents) if p.exists()))
    if free is None:
        return grey(f"free space of {folder} is not visible")
    measured = _recorded_rate(folder)
    width, height, rate_hz = bench.profile()
    rate = measured or width * height * rate_hz * len(bench.views) * JPEG_BYTES + STATE_BYTES
    minutes = free / rate / 60
    source = "as the newest bags" if measured else "estimated, no bags yet"
    seen = f"{minutes:.0f} min of recording: {free / 1e9:.0f} GB free, {rate / 1e6:.1f} MB/s ({source})"
    if minutes >= SHORT_MIN:
        return green(seen)
    cure = f"free space in {folder} (move bags away after `e0 convert`), or bag_dir:= on a larger disk"
    return red(seen, cure) if minutes < LEAST_MIN else yellow(seen, cure)


def gpu(machine: Machine, bench: Bench) -> Finding:
    """The GPU answers its driver, and torch is the build that uses it."""
    query = "--query-gpu=name,driver_version,memory.free,memory.total"
    answer = machine.run("nvidia-smi", query, "--format=csv,noheader,nounits", timeout_s=5.0)
    if answer is None:
        loaded = machine.text("/proc/driver/nvidia/version")
        return grey("no nvidia-smi" + (", but the driver is loaded" if loaded else ": a policy runs on the CPU"))
    if answer.status != 0 or "," not in answer.out:
        said = (answer.out + answer.err).strip().splitlines() or ["no answer"]
        return red(
            f"nvidia-smi: {said[0][:100]}",
            "reboot after a driver update, or install the driver again: sudo ubuntu-drivers install",
        )
    name, driver, free, total = (part.strip() for part in answer.out.splitlines()[0].split(","))
    seen = f"{name}, driver {driver}, {free} of {total} MiB free"
    builds = [path.name for path in Path(machine.prefix).glob("lib/python3.*/site-packages/torch-*.dist-info")]
    if any("+cpu" in build for build in builds):
        return yellow(f"{seen}, but torch is a CPU build", "install PyTorch's CUDA build, or policy_python:= with one")
    if not builds:
        return grey(f"{seen}, but there is no torch in {machine.prefix}", "run it with the policy's Python")
    return green(seen)


def checkpoint(machine: Machine, bench: Bench) -> Finding:
    """The checkpoint is whole, is for these views, and its weights fit into the memory that is free."""
    if not bench.checkpoint:
        return grey("no checkpoint was named", "--checkpoint DIR")
    try:
        card = read_card(bench.checkpoint)
        check_rows(card, (), "an arm")
    except ConfigError as error:
        return red(
            str(error), "give the folder that `e0 train` wrote (runs/<name>/checkpoint) for an arm, copied whole"
        )
    if "://" in bench.checkpoint:
        return grey(f"{card.kind} at {bench.checkpoint}: its weights are on its own machine")
    size = _weights_bytes(Path(bench.checkpoint) / WEIGHTS)
    if isinstance(size, str):
        return red(size, "copy the checkpoint again (rsync -c), both files")
    if missing := [view for view in card.views if view not in bench.views]:
        seen = f"it was trained on the views {', '.join(card.views)}; here are {', '.join(bench.views)}"
        return red(seen, f"start cameras for {', '.join(missing)} (views:={','.join(card.views)}), or say --views")
    return _fit(machine, card, size)


def _fit(machine: Machine, card: Card, size: int) -> Finding:
    needed = (size + OVERHEAD_BYTES) / 2**20
    answer = machine.run("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", timeout_s=5.0)
    free: float | None = None
    if answer is not None and answer.status == 0 and answer.out.strip():
        first = answer.out.splitlines()[0].strip()
        free, where = (float(first) if first.isdigit() else None), "on the GPU"
    if free is None:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", machine.text("/proc/meminfo") or "", re.MULTILINE)
        free, where = (int(found.group(1)) / 1024 if found else None), "for the CPU"
    what = f"{card.identifier[:8]} for {card.embodiment or 'any arm'}, {size / 2**20:.0f} MiB of weights"
    if free is None:
        return grey(f"{what}; free memory is not visible")
    seen = f"{what}: {needed:.0f} MiB needed, {free:.0f} MiB free {where}"
    if needed <= free:
        return green(seen)
    return red(seen, "end what fills the memory (nvidia-smi, top), or take a smaller model or a larger GPU")


def vulkan(machine: Machine, bench: Bench) -> Finding:
    """A driver that ManiSkill can render with. Only a simulation needs one."""
    answer = machine.run(sys.executable, "-c", _VULKAN, timeout_s=40.0)
    if answer is None or answer.status != 0:
        said = answer.err.strip().splitlines()[-1:] if answer else []
        return grey(f"the simulator's part cannot be asked: {said[0][:80] if said else 'no answer'}")
    driver = json.loads(answer.out.strip().splitlines()[-1])
    if not driver:
        cure = "python -m sim.vulkan, or install mesa-vulkan-drivers (Mesa 24.3 or newer) or NVIDIA's driver"
        return yellow("no Vulkan driver that ManiSkill renders with (fr3_plant and the real arm need none)", cure)
    return green(f"{driver['device']} ({'CPU' if driver['cpu'] else 'GPU'})")


def _recorded_rate(folder: Path) -> float | None:
    """Bytes per second of the newest bags; None without any."""
    files = sorted(folder.glob("*/metadata.yaml"), key=lambda p: p.stat().st_mtime)[-NEWEST:]
    total = seconds = 0.0
    for path in files:
        try:
            info = yaml.safe_load(path.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
            seconds += info["duration"]["nanoseconds"] / 1e9
            total += sum(f.stat().st_size for f in path.parent.glob("*.mcap"))
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            continue
    return total / seconds if seconds > 0 and total > 0 else None


def _weights_bytes(path: Path) -> int | str:
    """Bytes of the tensors by the file's own JSON header, or what is wrong with the file."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER_BYTES:
                return f"{path} is no safetensors file"
            header = json.loads(file.read(length))
        size = max((int(t["data_offsets"][1]) for name, t in header.items() if name != "__metadata__"), default=0)
        held = path.stat().st_size - 8 - length
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        return f"{path} cannot be read: {type(error).__name__}: {error}"
    return size if held == size else f"{path} holds {held} bytes of weights; its header says {size}"
