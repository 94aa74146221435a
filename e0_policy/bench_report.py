"""What benchmarks of the policy share: clocks, the machine's name and ceilings, and a report that grows row by row."""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from e0_policy.files import write_json

UNMEASURED = "unmeasured"


def tell(
    options: argparse.Namespace,
    measured: Callable[[str], Iterator[dict[str, Any]]],
    table: Callable[[dict[str, Any]], list[str]],
) -> None:
    """Measure each device that is asked for and there, the GPU first; print each line of the table when it is known.

    Args:
        options: `size`, `threads`, `device` and `json`, where the figures so far are written with each line.
        measured: figures of a device, again and again as they grow.
        table: lines of the report, to which more figures only add.

    Raises:
        OSError: the file cannot be written; nothing has been measured then, unless the disk is full meanwhile.

    """
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"size": options.size, "machine": machine(options.threads), "devices": {}}
    printed = 0

    def show() -> None:
        nonlocal printed
        if options.json:
            write_json(options.json, report)
        lines = table(report)
        for line in lines[printed:]:
            print(line, flush=True)
        printed = len(lines)

    show()
    for device in ["cuda", "cpu"] if options.device == "all" else [options.device]:
        there = device == "cpu" or torch.cuda.is_available()
        for figures in measured(device) if there else (UNMEASURED,):
            report["devices"][device] = figures
            show()


def machine(threads: int) -> dict[str, Any]:
    """What this ran on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": processor(),
        "threads": threads,
        "gpu": gpu,
        "torch": torch.__version__,
    }


def processor() -> str:
    """The processor's name, which `platform` does not know on Linux."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def timed_ms(way: Callable[[], object], device: str) -> tuple[float, float]:
    """Wall time of a call, with the device idle before and after, and the processor time of this thread in it.

    The latter is what the call would take on a machine that does nothing else; waiting for a GPU is not in it.
    """
    if device == "cuda":
        torch.cuda.synchronize()
    start, worked = time.perf_counter(), time.thread_time()
    with torch.inference_mode():
        way()
    worked = time.thread_time() - worked
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3, worked * 1e3


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest-rank quantile."""
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def matmul_gflops(device: str, dtype: torch.dtype) -> float:
    """Best of several large matrix products."""
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in "ab")
    best = min(timed_ms(lambda: a @ b, device)[0] for _ in range(8))
    return 2 * size**3 / best / 1e6


def copy_gb_s(device: str) -> float:
    """Bytes read and written by the best of several large copies."""
    size = (1 << 30) if device == "cuda" else (1 << 27)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(timed_ms(lambda: target.copy_(source), device)[0] for _ in range(8)) / 1e6


def memory_mb(device: str) -> float:
    """Peak memory of this process on the device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
