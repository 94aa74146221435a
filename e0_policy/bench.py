"""`e0 bench policy`: latency of one chunk, where it goes, memory, and the machine's own ceilings beside it.

Eager reference and fast engine are timed in turns in the same run. Weights are random: time does not depend on them.
Noise is in neither, because it is drawn and projected between calls (`E0Policy.prepare`): it is a stage of its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from e0_policy import diffusion
from e0_policy.batch import Batch
from e0_policy.bench_report import UNMEASURED, copy_gb_s, matmul_gflops, memory_mb, quantile, tell, timed_ms
from e0_policy.collate import on_device
from e0_policy.diffusion import NoiseDraw, Sample, SamplerSettings
from e0_policy.engine import Engine
from e0_policy.gemma import RmsNorm
from e0_policy.inference import served_dtype
from e0_policy.model import E0Model
from e0_policy.model_config import E0Config, ModelConfigError, preset

TARGETS_MS = {
    ("nano", "cpu", 4, 2, 8): 12.0,
    ("nano", "cpu", 10, 2, 8): 25.0,
    ("full", "cuda", 10, 2, 10): 8.0,
    ("full", "cuda", 10, 2, 50): 11.0,
}
"""Goals for a chunk, by size, device, N, views and H: nano on one CPU thread, full on an H200."""


@dataclass(frozen=True)
class Limit:
    """How much is measured for a figure: at most so many calls, and no more once so many seconds are over."""

    calls: int
    seconds: float

    def __post_init__(self) -> None:
        if self.calls < 1:
            raise ValueError(f"repeat is {self.calls}; at least 1 is needed")

    def turns(self, calls: int = 0) -> Iterator[int]:
        """0, 1, ... as long as the limit allows, and at least once; at most `calls` if that is not 0."""
        end = time.perf_counter() + self.seconds
        for turn in range(min(self.calls, calls or self.calls)):
            yield turn
            if time.perf_counter() >= end:
                return


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 bench policy`: 0 measured, 2 wrong arguments or a file that cannot be written."""
    options = _arguments(argv)
    try:
        base = preset(options.size)
        configs = [
            sized(base, views, horizon)
            for views in options.views or (len(base.views),)
            for horizon in options.horizon or (base.prediction_horizon,)
        ]
        settings = [SamplerSettings.of(base, steps=n, samples=options.samples) for n in options.steps]
        committed = [committed_rows(options.committed, config) for config in configs]
        limit = Limit(options.repeat, options.seconds)

        def measured(device: str) -> Iterator[dict[str, Any]]:
            dtype = served_dtype(options.dtype, torch.device(device), base.width)
            return measure(list(zip(configs, committed, strict=True)), settings, device, dtype, limit, options.kernels)

        tell(options, measured, table)
    except (ValueError, OSError) as error:
        print(f"e0 bench policy: {error}", file=sys.stderr)
        return 2
    return 0


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
    kinds = ("auto", "float32", "bfloat16")
    parser.add_argument("--dtype", choices=kinds, default="auto", help="of the weights (default: as they are served)")
    how = "committed rows, one row each (default: 0, and 4 as far as the horizon allows)"
    parser.add_argument("--committed", type=int, nargs="+", help=how)
    parser.add_argument("--kernels", action="store_true", help="on a GPU, the fast path in kernels of our own")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--repeat", type=int, default=50, help="most timed calls per figure (default: 50)")
    parser.add_argument("--seconds", type=float, default=10.0, help="after which no more are timed (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON, row by row")
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


def committed_rows(given: Sequence[int] | None, config: E0Config) -> list[int]:
    """Numbers of committed rows to measure with: as given, or none and what plans behind the first may have.

    Raises:
        ModelConfigError: as many as the chunk has rows, or less than 0.

    """
    below = config.prediction_horizon - 1
    for rows in given or ():
        if not 0 <= rows <= below:
            raise ModelConfigError(f"committed is {rows}; allowed is 0 to {below}, below the horizon")
    return list(given) if given else sorted({0, min(4, below)})


def measure(
    cases: Sequence[tuple[E0Config, Sequence[int]]],
    settings: Sequence[SamplerSettings],
    device: str,
    dtype: torch.dtype,
    limit: Limit,
    kernels: bool = False,
) -> Iterator[dict[str, Any]]:
    """Figures of one device: ceilings, parameters, and a row more each time; at the end its peak memory.

    Args:
        cases: models, and with how many committed rows each is measured.
        settings: of the sampler, a row each.
        device: "cpu" or "cuda".
        dtype: of the weights.
        limit: of each figure.
        kernels: on a GPU, the fast path in kernels of our own.

    """
    ceilings = {"matmul_gflops": matmul_gflops(device, dtype), "copy_gb_s": copy_gb_s(device)}
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch."), "ceilings": ceilings, "rows": rows}
    for config, committed in cases:
        model = random_model(config, device, dtype)
        figures.setdefault("parameters", sum(p.numel() for p in model.parameters()))
        for setting in settings:
            for held in committed:
                rows.append(measure_steps(model, setting, held, limit, ceilings, kernels))
                yield figures
        del model
    figures["memory_mb"] = memory_mb(device)
    yield figures


def random_model(config: E0Config, device: str, dtype: torch.dtype) -> E0Model:
    """A model with weights of ordinary size, made without ever holding a float32 copy.

    Gates are open, as they are before training, so that the expert's branches count in what the ways agree on. Large
    weights repeat one block of random numbers: drawing billions would take longer than the measurement.
    """
    with torch.device("meta"):
        model = E0Model(config).to(dtype)
    model = model.to_empty(device=device).eval().requires_grad_(False)
    block = torch.empty(1 << 20, dtype=dtype, device=device).uniform_(-0.02, 0.02)
    for parameter in model.parameters():
        for part in parameter.view(-1).split(len(block)):
            part.copy_(block[: len(part)])
    for norm in (m for m in model.modules() if isinstance(m, RmsNorm) and hasattr(m, "dense")):
        norm.dense.bias[-config.expert_width :] = 1.0
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
    model: E0Model,
    settings: SamplerSettings,
    committed: int,
    limit: Limit,
    ceilings: dict[str, float],
    kernels: bool = False,
) -> dict[str, Any]:
    """Eager and fast in turns, then the stages of the fast path, and the floor that the ceilings set.

    Both start, as in use, from bytes on the host, with the noise of this call made ready. Committed rows do not count
    in the agreement.
    """
    device, config = model.action_in.weight.device.type, model.config
    batch = with_plan(random_observation(config), config, committed)
    generator = torch.Generator(device).manual_seed(0)

    def draw() -> NoiseDraw:
        return diffusion.draw_noise(config, settings, settings.samples, generator)

    noise, engine = draw(), Engine(model, settings, kernels=kernels and device == "cuda")
    ways: dict[str, Callable[[], Sample]] = {
        "eager": lambda: model.sample(on_device(batch, device), settings, noise),
        "fast": _prepared(engine, batch, noise),
    }
    with torch.inference_mode():
        first = {name: way().tokens[:, committed:] for name, way in ways.items()}
    few = max(3, limit.calls // 5)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in limit.turns():
        for name, way in ways.items():
            if name == "fast" or turn < few:
                times[name].append(timed_ms(way, device))
    parts: dict[str, Callable[[], object]] = {"noise": lambda: engine.prepare(draw()), **engine.stages(batch, noise)}
    stages = {
        name: statistics.median(timed_ms(part, device)[0] for _ in limit.turns(few)) for name, part in parts.items()
    }
    walls = {name: [wall for wall, _ in pairs] for name, pairs in times.items()}
    return {
        "views": len(config.views),
        "horizon": config.prediction_horizon,
        "steps": settings.steps,
        "samples": settings.samples,
        "committed": committed,
        **{f"{name}_ms": {"p50": quantile(t, 0.5), "p99": quantile(t, 0.99), "n": len(t)} for name, t in walls.items()},
        "fast_on_cpu_ms": statistics.median(busy for _, busy in times["fast"]),
        "speedup": quantile(walls["eager"], 0.5) / quantile(walls["fast"], 0.5),
        "token_agreement": float((first["fast"] == first["eager"]).float().mean()),
        "stages_ms": stages,
        "floor_ms": floor_ms(model, settings, batch, ceilings),
    }


def with_plan(batch: Batch, config: E0Config, committed: int) -> Batch:
    """The observation while a random plan is in force, of which so many rows are committed; as it is if none are."""
    if not committed:
        return batch
    tokens, known = torch.randint(0, config.bins, batch.action_tokens.shape), torch.ones_like(batch.action_mask)
    return replace(batch, action_tokens=tokens, action_mask=known, committed=torch.tensor([committed]))


def _prepared(engine: Engine, batch: Batch, noise: NoiseDraw) -> Callable[[], Sample]:
    """A call whose noise was projected before, as in use."""
    engine.prepare(noise)
    projected = engine._noise

    def call() -> Sample:
        engine._noise = projected
        return engine.sample(batch)

    return call


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


def table(report: dict[str, Any]) -> list[str]:
    """The report as lines of text."""
    lines = [
        f"{report['size']} on {report['machine']['cpu']} ({report['machine']['threads']} threads), GPU "
        f"{report['machine']['gpu']}, torch {report['machine']['torch']}"
    ]
    head = f"{'device':<6}{'views':>6}{'H':>4}{'N':>4}{'committed':>10}{'n':>7}{'fast p50':>10}{'p99':>10}{'on CPU':>9}"
    head += f"{'eager p50':>11}{'ratio':>7}{'noise':>8}{'embed':>9}{'prefix':>9}{'steps':>10}{'floor':>9}{'agree':>8}"
    lines.append(head + "   target [ms]")
    for device, figures in report["devices"].items():
        if figures == UNMEASURED:
            lines.append(f"{device:<6}  {UNMEASURED}")
            continue
        lines += [_row(report["size"], device, row) for row in figures["rows"]]
        if "memory_mb" in figures:
            ceilings = figures["ceilings"]
            lines.append(
                f"{device:<6}  {figures['parameters'] / 1e6:.1f} M parameters {figures['dtype']}, peak memory "
                f"{figures['memory_mb']:.0f} MB, ceilings {ceilings['matmul_gflops']:.0f} GFLOP/s and "
                f"{ceilings['copy_gb_s']:.1f} GB/s"
            )
    return lines


def _row(size: str, device: str, row: dict[str, Any]) -> str:
    """A row of the table; `n` counts calls of the fast and of the eager way."""
    target = TARGETS_MS.get((size, device, row["steps"], row["views"], row["horizon"]))
    fast, eager, stages = row["fast_ms"], row["eager_ms"], row["stages_ms"]
    n = f"{fast['n']}/{eager['n']}"
    return (
        f"{device:<6}{row['views']:>6}{row['horizon']:>4}{row['steps']:>4}{row['committed']:>10}{n:>7}"
        f"{fast['p50']:>10.2f}{fast['p99']:>10.2f}{row['fast_on_cpu_ms']:>9.2f}{eager['p50']:>11.2f}"
        f"{row['speedup']:>7.1f}{stages['noise']:>8.2f}{stages['embed']:>9.2f}{stages['prefix']:>9.2f}"
        f"{stages['steps']:>10.2f}{row['floor_ms']:>9.2f}{row['token_agreement']:>8.4f}   "
        f"{f'<= {target:g}' if target else ''}"
    ).rstrip()


if __name__ == "__main__":
    sys.exit(main())
