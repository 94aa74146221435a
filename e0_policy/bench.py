"""`e0 bench policy`: latency of one chunk, where it goes, memory, and the machine's own ceilings beside it.

Eager reference and fast engine are timed in turns in the same run. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from e0_policy import diffusion
from e0_policy.batch import Batch
from e0_policy.collate import on_device
from e0_policy.diffusion import NoiseDraw, Sample, SamplerSettings
from e0_policy.engine import Engine
from e0_policy.model import E0Model
from e0_policy.model_config import E0Config, preset

UNMEASURED = "unmeasured"
TARGETS_MS = {
    ("nano", "cpu", 4, 2, 8): 12.0,
    ("nano", "cpu", 10, 2, 8): 25.0,
    ("full", "cuda", 10, 2, 10): 8.0,
    ("full", "cuda", 10, 2, 50): 11.0,
}
"""Goals for a chunk, by size, device, N, views and H: nano on one CPU thread, full on an H200."""


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 bench policy`: 0 measured, 2 wrong arguments."""
    options = _arguments(argv)
    try:
        base = preset(options.size)
        configs = [
            sized(base, views, horizon)
            for views in options.views or (len(base.views),)
            for horizon in options.horizon or (base.prediction_horizon,)
        ]
        settings = [SamplerSettings.of(base, steps=n, samples=options.samples) for n in options.steps]
    except ValueError as error:
        print(f"e0 bench policy: {error}", file=sys.stderr)
        return 2

    def measured(device: str) -> dict[str, Any]:
        dtype = torch.bfloat16 if device == "cuda" or options.dtype == "bfloat16" else torch.float32
        return measure(configs, settings, device, dtype, options.repeat, options.kernels)

    tell(options, measured, table)
    return 0


def tell(
    options: argparse.Namespace,
    measured: Callable[[str], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> None:
    """Measure each device that is asked for and there; print the table, and write the figures where asked."""
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"size": options.size, "machine": machine(options.threads), "devices": {}}
    for device in ["cpu", "cuda"] if options.device == "all" else [options.device]:
        there = device == "cpu" or torch.cuda.is_available()
        report["devices"][device] = measured(device) if there else UNMEASURED
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="e0 bench policy",
        description="Latency of one action chunk, eager against fast.",
        epilog="example: e0 bench policy --size full --device cuda --views 1,2,3 --horizon 10,50 --json policy.json",
    )
    parser.add_argument("--size", choices=("nano", "small", "full"), default="nano", help="model (default: nano)")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4, 10], help="denoising steps N (default: 1 4 10)")
    parser.add_argument("--samples", type=int, default=1, help="chunks drawn per observation (default: 1)")
    parser.add_argument("--views", type=_numbers, help="numbers of views, as 1,2,3 (default: the size's)")
    parser.add_argument("--horizon", type=_numbers, help="rows of a chunk, as 10,50 (default: the size's)")
    parser.add_argument("--device", choices=("all", "cpu", "cuda"), default="all", help="default: all")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="on the CPU")
    parser.add_argument("--kernels", action="store_true", help="on a GPU, the fast path in kernels of our own")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--repeat", type=int, default=50, help="timed calls per figure (default: 50)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    return parser.parse_args(argv)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def sized(base: E0Config, views: int, horizon: int) -> E0Config:
    """A configuration with this many views and rows; extra views are like the first ones.

    Raises:
        ModelConfigError: no views, or a horizon out of range.

    """
    names = [*base.views, *(f"view{i}" for i in range(len(base.views), views))][:views]
    return E0Config.from_dict({**base.to_dict(), "views": names, "prediction_horizon": horizon})


def machine(threads: int) -> dict[str, Any]:
    """What this ran on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": platform.processor() or platform.machine(),
        "threads": threads,
        "gpu": gpu,
        "torch": torch.__version__,
    }


def measure(
    configs: Sequence[E0Config],
    settings: Sequence[SamplerSettings],
    device: str,
    dtype: torch.dtype,
    repeat: int,
    kernels: bool = False,
) -> dict[str, Any]:
    """Figures of one device: parameters, ceilings, and a row per number of views, of rows and of steps."""
    ceilings = {"matmul_gflops": matmul_gflops(device, dtype), "copy_gb_s": copy_gb_s(device)}
    rows, parameters = [], 0
    for config in configs:
        model = random_model(config, device, dtype)
        parameters = parameters or sum(p.numel() for p in model.parameters())
        rows += [measure_steps(model, s, repeat, ceilings, kernels) for s in settings]
        del model
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": parameters,
        "ceilings": ceilings,
        "rows": rows,
        "memory_mb": memory_mb(device),
    }


def random_model(config: E0Config, device: str, dtype: torch.dtype) -> E0Model:
    """A model with weights of ordinary size, made without ever holding a float32 copy.

    Large weights repeat one block of random numbers: drawing billions would take longer than the measurement.
    """
    with torch.device("meta"):
        model = E0Model(config).to(dtype)
    model = model.to_empty(device=device).eval().requires_grad_(False)
    block = torch.empty(1 << 20, dtype=dtype, device=device).uniform_(-0.02, 0.02)
    for parameter in model.parameters():
        for part in parameter.view(-1).split(len(block)):
            part.copy_(block[: len(part)])
    return model


def random_observation(config: E0Config, words: int = 12) -> Batch:
    """One observation on the host as `stack` leaves it: images as bytes, every view, an ordinary instruction."""
    views, side = len(config.views), config.image_size
    chunk = (1, config.prediction_horizon, config.action_dim)
    words = min(words, config.max_text_tokens)
    return Batch(
        images=torch.randint(0, 256, (1, views, 3, side, side), dtype=torch.uint8),
        view_mask=torch.ones(1, views, dtype=torch.bool),
        view_offset=torch.zeros(1, views, 3),
        text_tokens=torch.randint(0, config.vocab_size, (1, words)),
        text_mask=torch.ones(1, words, dtype=torch.bool),
        proprio=torch.rand(1, config.proprio_dim) * 2 - 1,
        action_tokens=torch.zeros(chunk, dtype=torch.long),
        action_mask=torch.zeros(chunk, dtype=torch.bool),
        committed=torch.zeros(1, dtype=torch.long),
    )


def measure_steps(
    model: E0Model, settings: SamplerSettings, repeat: int, ceilings: dict[str, float], kernels: bool = False
) -> dict[str, Any]:
    """Eager and fast in turns, then the stages of the fast path, and the floor that the ceilings set.

    Both start, as in use, from bytes on the host.
    """
    device = model.action_in.weight.device.type
    batch = random_observation(model.config)
    generator = torch.Generator(device).manual_seed(0)
    noise = diffusion.draw_noise(model.config, settings, settings.samples, generator)
    engine = Engine(model, settings, kernels=kernels and device == "cuda")
    ways: dict[str, Callable[[], Sample]] = {
        "eager": lambda: model.sample(on_device(batch, device), settings, noise),
        "fast": _prepared(engine, batch, noise),
    }
    few = min(repeat, max(3, repeat // 5))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        timed_ms(way, device)
    for turn in range(repeat):
        for name, way in ways.items():
            if name == "fast" or turn < few:
                times[name].append(timed_ms(way, device))
    agreement = (engine.sample(batch, noise).tokens == ways["eager"]().tokens).float().mean()
    busy = [on_cpu_ms(ways["fast"]) for _ in range(repeat)]
    stages = {
        name: statistics.median(timed_ms(stage, device) for _ in range(few))
        for name, stage in engine.stages(batch, noise).items()
    }
    floor = floor_ms(model, settings, batch, ceilings)
    return {
        "views": len(model.config.views),
        "horizon": model.config.prediction_horizon,
        "steps": settings.steps,
        "samples": settings.samples,
        **{f"{name}_ms": {"p50": quantile(t, 0.5), "p99": quantile(t, 0.99), "n": len(t)} for name, t in times.items()},
        "fast_on_cpu_ms": statistics.median(busy),
        "speedup": quantile(times["eager"], 0.5) / quantile(times["fast"], 0.5),
        "token_agreement": float(agreement),
        "stages_ms": stages,
        "floor_ms": floor,
    }


def _prepared(engine: Engine, batch: Batch, noise: NoiseDraw) -> Callable[[], Sample]:
    """A call whose noise was projected before, as in use."""
    engine.prepare(noise)
    projected = engine._noise

    def call() -> Sample:
        engine._noise = projected
        return engine.sample(batch)

    return call


def timed_ms(way: Callable[[], object], device: str) -> float:
    """Wall time of a call, with the device idle before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.inference_mode():
        way()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def on_cpu_ms(way: Callable[[], object]) -> float:
    """Processor time of a call in this thread: on a busy machine, what it would take if it were not waiting."""
    start = time.thread_time()
    with torch.inference_mode():
        way()
    return (time.thread_time() - start) * 1e3


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest-rank quantile."""
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def matmul_gflops(device: str, dtype: torch.dtype) -> float:
    """Best of several large matrix products."""
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in "ab")
    best = min(timed_ms(lambda: a @ b, device) for _ in range(8))
    return 2 * size**3 / best / 1e6


def copy_gb_s(device: str) -> float:
    """Bytes read and written by the best of several large copies."""
    size = (1 << 30) if device == "cuda" else (1 << 27)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(timed_ms(lambda: target.copy_(source), device) for _ in range(8)) / 1e6


def memory_mb(device: str) -> float:
    """Peak memory of this process on the device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def floor_ms(model: E0Model, settings: SamplerSettings, batch: Batch, ceilings: dict[str, float]) -> float:
    """Lower bound of a chunk: per stage the larger of arithmetic and of reading the weights once, at the ceilings.

    Counts the matrix products of linear layers and the weights; attention, norms and launches are not in it.
    """
    config = model.config
    state = {"token": 1, "special": config.proprio_dim, "text": 0}[config.proprio_form]
    prefix = len(config.views) * model.vision.tokens + int(batch.text_mask.sum()) + state
    action = config.action_tokens * settings.samples
    blocks, size = config.depth, model.action_in.weight.element_size()
    image = len(config.views) * model.vision.tokens
    vision = sum(p.numel() for p in model.vision.parameters())
    language = sum(p.numel() for p in model.backbone.language.parameters()) * (blocks - 1) // blocks
    expert = sum(p.numel() for n, p in model.backbone.expert.named_parameters() if "dense" not in n)
    expert += 2 * model.action_out.weight.numel()
    stages = [(vision, image if config.vision == "siglip" else 0), (language, prefix)]
    stages += [(expert, action)] * settings.steps
    each = (max(2 * n * t / ceilings["matmul_gflops"], n * size / ceilings["copy_gb_s"]) for n, t in stages)
    return sum(each) / 1e6


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [
        f"{report['size']} on {report['machine']['cpu']} ({report['machine']['threads']} threads), GPU "
        f"{report['machine']['gpu']}, torch {report['machine']['torch']}"
    ]
    head = f"{'device':<6}{'views':>6}{'H':>4}{'N':>4}{'fast p50':>10}{'p99':>10}{'on CPU':>9}{'eager p50':>11}"
    lines.append(head + f"{'ratio':>7}{'embed':>9}{'prefix':>9}{'steps':>10}{'floor':>9}{'agree':>8}   target [ms]")
    for device, figures in report["devices"].items():
        if figures == UNMEASURED:
            lines.append(f"{device:<6}  {UNMEASURED}")
            continue
        for row in figures["rows"]:
            target = TARGETS_MS.get((report["size"], device, row["steps"], row["views"], row["horizon"]))
            fast, stages = row["fast_ms"], row["stages_ms"]
            lines.append(
                f"{device:<6}{row['views']:>6}{row['horizon']:>4}{row['steps']:>4}{fast['p50']:>10.2f}{fast['p99']:>10.2f}{row['fast_on_cpu_ms']:>9.2f}{row['eager_ms']['p50']:>11.2f}"
                f"{row['speedup']:>7.1f}{stages['embed']:>9.2f}{stages['prefix']:>9.2f}{stages['steps']:>10.2f}"
                f"{row['floor_ms']:>9.2f}{row['token_agreement']:>8.4f}   {f'<= {target:g}' if target else ''}"
            )
        ceilings = figures["ceilings"]
        lines.append(
            f"{device:<6}  {figures['parameters'] / 1e6:.1f} M parameters {figures['dtype']}, peak memory "
            f"{figures['memory_mb']:.0f} MB, ceilings {ceilings['matmul_gflops']:.0f} GFLOP/s and "
            f"{ceilings['copy_gb_s']:.1f} GB/s"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
