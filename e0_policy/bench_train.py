"""`e0 bench train`: one step of `train.py` - augmentation, forward, backward, clipping, AdamW, moving average.

The samples are random and lie in memory: reading demonstrations is not in it. Committed rows cost extra, because clean
tokens have a diffusion time of their own, so both are measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from e0_policy.batch import Batch
from e0_policy.bench import random_observation
from e0_policy.bench_report import UNMEASURED, matmul_gflops, memory_mb, quantile, tell
from e0_policy.cpu_training import keep_memory
from e0_policy.distributed import Workers
from e0_policy.learner import Learner
from e0_policy.model import E0Model
from e0_policy.model_config import E0Config, preset
from e0_policy.train import Run, TrainStep
from e0_policy.train_config import TrainConfig
from e0_policy.train_setup import Data

BATCH = {"nano": 64, "small": 256, "full": 32}
TARGETS_S = {("nano", "cpu", 64): 0.3}
"""Goals for a step: nano at batch 64 on one CPU thread."""


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 bench train`: 0 measured, 2 wrong arguments or a file that cannot be written."""
    options = _arguments(argv)
    changes: dict[str, Any] = {"views": [f"view{i}" for i in range(options.views)]} if options.views else {}
    try:
        configs = [preset(options.size, committed_max=rows, **changes) for rows in options.committed]
        size = options.batch or BATCH[options.size]
        shared: dict[str, Any] = {"batch_size": size, "precision": options.precision, "compiled": options.compiled}
        runs = [TrainConfig(model=c, **shared) for c in configs]
        tell(options, lambda device: measure(runs, device, options.repeat), table)
    except (ValueError, OSError) as error:
        print(f"e0 bench train: {error}", file=sys.stderr)
        return 2
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="e0 bench train",
        description="Time of one training step, and where it goes. Reading demonstrations is not in it.",
        epilog="example: e0 bench train --size nano --json train.json",
    )
    parser.add_argument("--size", choices=tuple(BATCH), default="nano", help="model (default: nano)")
    parser.add_argument("--batch", type=int, default=0, help="samples per step (default: 64, 256 or 32 by size)")
    parser.add_argument("--views", type=int, default=0, help="number of views (default: the size's)")
    parser.add_argument(
        "--committed", type=int, nargs="+", default=[0, 4], help="most committed rows, one row each (default: 0 4)"
    )
    parser.add_argument("--compiled", action="store_true", help="torch.compile (on a CPU it needs g++)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="default: bf16")
    parser.add_argument("--device", choices=("all", "cpu", "cuda"), default="all", help="default: all")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--repeat", type=int, default=15, help="timed steps per figure (default: 15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    return parser.parse_args(argv)


def measure(configs: Sequence[TrainConfig], device: str, repeat: int) -> Iterator[dict[str, Any]]:
    """Figures of one device: the matrix ceiling in the training's precision, a row more each time, the memory."""
    if device == "cpu":
        keep_memory()
    dtype = torch.bfloat16 if configs[0].precision == "bf16" else torch.float32
    ceiling = matmul_gflops(device, dtype)
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {"precision": configs[0].precision, "matmul_gflops": ceiling, "rows": rows}
    for config in configs:
        rows.append(measure_step(random_run(config, device), ceiling, repeat))
        yield figures
    figures["memory_mb"] = memory_mb(device)
    yield figures


def random_run(config: TrainConfig, device: str) -> Run:
    """A run with fresh weights and no data."""
    where = torch.device(device)
    model = E0Model(config.model).to(where)
    if config.compiled:
        model.compile_parts()
    step = TrainStep(model, config.writing_weight)
    return Run(config, Workers(0, 1, where), cast(Data, None), model, step, Learner(model, config))


def random_samples(config: E0Config, size: int) -> Batch:
    """A batch as the collator leaves it: on the CPU, images as bytes, every action to be predicted."""
    batch = random_observation(config).repeat(size)
    return replace(
        batch,
        action_tokens=torch.randint(0, config.bins, batch.action_tokens.shape),
        action_mask=torch.ones_like(batch.action_mask),
    )


def measure_step(run: Run, ceiling_gflops: float, repeat: int) -> dict[str, Any]:
    """Whole steps first; then as many with a clock between their parts; and one whose products are counted."""
    config, device = run.config, run.workers.device.type
    samples = random_samples(config.model, config.batch_size), None
    clock = _Clock(device)
    times, busy = [], []
    for step in range(-2, repeat):
        start, worked = clock.now(), time.thread_time()
        run.update(max(step, 0), samples)
        if step >= 0:
            times.append(clock.now() - start)
            busy.append(time.thread_time() - worked)
    parts = _parts(run, samples, clock, max(3, repeat // 3))
    with FlopCounterMode(display=False) as counter:
        run.update(0, samples)
    p50, flops = quantile(times, 0.5), counter.get_total_flops()
    return {
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "batch": config.batch_size,
        "views": len(config.model.views),
        "committed": config.model.committed_max,
        "step_s": {"p50": p50, "p99": quantile(times, 0.99), "n": len(times)},
        "on_cpu_s": statistics.median(busy),
        "samples_per_s": config.batch_size / p50,
        "parts_s": parts,
        "gflop": flops / 1e9,
        "share_of_ceiling": flops / 1e9 / p50 / ceiling_gflops,
    }


class _Clock:
    """Wall time, with the device idle at every reading."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self.marks: dict[str, float] = {}

    def now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def mark(self, name: str) -> None:
        self.marks[name] = self.now()


def _parts(run: Run, samples: tuple[Batch, None], clock: _Clock, repeat: int) -> dict[str, float]:
    """Median seconds of the parts of a step: augmentation, forward, backward with clipping, optimizer with average."""
    hooks = [
        run.module.register_forward_pre_hook(lambda *_: clock.mark("forward")),
        run.module.register_forward_hook(lambda *_: clock.mark("backward")),
        run.learner.optimizer.register_step_pre_hook(lambda *_: clock.mark("optimizer")),
    ]
    names = ("augment", "forward", "backward", "optimizer", "end")
    rows = []
    for step in range(repeat):
        clock.mark("augment")
        run.update(step, samples)
        clock.mark("end")
        rows.append([clock.marks[b] - clock.marks[a] for a, b in pairwise(names)])
    for hook in hooks:
        hook.remove()
    return {name: statistics.median(row[i] for row in rows) for i, name in enumerate(names[:-1])}


def table(report: dict[str, Any]) -> list[str]:
    """The report as lines of text."""
    lines = [
        f"{report['size']} training step on {report['machine']['cpu']} ({report['machine']['threads']} threads), GPU "
        f"{report['machine']['gpu']}, torch {report['machine']['torch']}"
    ]
    head = f"{'device':<6}{'batch':>6}{'views':>6}{'committed':>10}{'p50':>8}{'p99':>8}{'on CPU':>8}"
    lines.append(
        head
        + f"{'samples/s':>11}{'augment':>9}{'forward':>9}{'backward':>9}{'optimizer':>10}{'of peak':>9}   target [s]"
    )
    for device, figures in report["devices"].items():
        if figures == UNMEASURED:
            lines.append(f"{device:<6}  {UNMEASURED}")
            continue
        for row in figures["rows"]:
            target = TARGETS_S.get((report["size"], device, row["batch"]))
            cells = f"{device:<6}{row['batch']:>6}{row['views']:>6}{row['committed']:>10}{row['step_s']['p50']:>8.3f}"
            cells += f"{row['step_s']['p99']:>8.3f}{row['on_cpu_s']:>8.3f}{row['samples_per_s']:>11.1f}"
            parts = row["parts_s"]
            cells += f"{parts['augment']:>9.3f}{parts['forward']:>9.3f}{parts['backward']:>9.3f}"
            share = f"{row['share_of_ceiling']:.0%}"
            lines.append(cells + f"{parts['optimizer']:>10.3f}{share:>9}   {f'<= {target:g}' if target else ''}")
        if "memory_mb" in figures:
            lines.append(
                f"{device:<6}  {figures['rows'][0]['parameters'] / 1e6:.1f} M parameters, {figures['precision']}, "
                f"ceiling {figures['matmul_gflops']:.0f} GFLOP/s, peak memory {figures['memory_mb']:.0f} MB"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
