"""`e0 bench steps`: how many denoising steps a checkpoint needs, on demonstrations that it was not trained on.

For each N: token agreement with the reference N (same noise, exact and within two bins), open-loop error and latency.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch

from e0_policy import diffusion
from e0_policy.checkpoint import Checkpoint, load_model, read_checkpoint
from e0_policy.collate import stack
from e0_policy.dataset import ChunkDataset, DatasetError, Source
from e0_policy.diffusion import SamplerSettings
from e0_policy.engine import Engine
from e0_policy.files import write_json
from e0_policy.learned_seeds import HELD_OUT
from e0_policy.model import E0Model
from e0_policy.model_config import Decode
from e0_policy.selection import mixed
from e0_policy.synthetic import SyntheticSource
from e0_policy.train_config import DataFolder
from e0_policy.train_setup import as_recorded
from e0_policy.transforms import PolicyTransform
from e0_policy.validation import OpenLoop, open_loop


@dataclass(frozen=True)
class StepsRow:
    """Figures of one number of steps and one way of decoding.

    `agreement` is the share of tokens equal to the reference's, `within_two` that within two bins, `latency_ms` the
    median of one chunk with the fast engine.
    """

    steps: int
    decode: str
    agreement: float
    within_two: float
    open_loop: OpenLoop
    latency_ms: float


def compare_steps(
    model: E0Model, dataset: ChunkDataset, indices: Sequence[int], settings: Sequence[SamplerSettings], seed: int = 0
) -> list[StepsRow]:
    """Measure each setting; the last one is the reference. Every setting gets the same noise, as far as it uses it."""
    device = model.action_in.weight.device
    tokens = [_tokens(model, dataset, indices, s, seed) for s in settings]
    rows = []
    for setting, (drawn, latency_ms) in zip(settings, tokens, strict=True):
        apart = (drawn - tokens[-1][0]).abs()
        error = open_loop(model, dataset, indices, device, settings=setting, seed=seed)
        agreement, within = ((apart <= limit).float().mean().item() for limit in (0, 2))
        rows.append(StepsRow(setting.steps, setting.decode, agreement, within, error, latency_ms))
    return rows


def _tokens(
    model: E0Model, dataset: ChunkDataset, indices: Sequence[int], settings: SamplerSettings, seed: int
) -> tuple[torch.Tensor, float]:
    """Tokens `(n, H, D)` of the fast engine, and the median time of one chunk in ms."""
    device = model.action_in.weight.device
    engine, drawn, times = Engine(model, settings), [], []
    for index in indices:
        inputs, targets = dataset[index]
        batch = stack([inputs], [targets])
        generator = torch.Generator(device).manual_seed(seed + index)
        engine.prepare(diffusion.draw_noise(model.config, settings, settings.samples, generator))
        start = time.perf_counter()
        drawn.append(engine.sample(batch).tokens.cpu())
        times.append((time.perf_counter() - start) * 1e3)
    return torch.cat(drawn), sorted(times)[len(times) // 2]


def open_data(folders: Sequence[str], found: Checkpoint, seed: int) -> Source:
    """Demonstrations of folders as one, or "synthetic" for the drawn task with scenes of this seed.

    Raises:
        DatasetError: no such folder, folders that cannot be mixed, or demonstrations that are not for this checkpoint.

    """
    if list(folders) == ["synthetic"]:
        source: Source = SyntheticSource(32, seed, found.model.image_size)
    else:
        source = mixed([as_recorded(DataFolder(folder)) for folder in folders], folders)
    names = tuple(found.transform["actions"]["names"])
    pairs: Mapping[str, tuple[object, object]] = {
        "embodiment": (source.embodiment, found.embodiment),
        "period_ns": (source.period_ns, found.period_ns),
        "rows": (source.representation.label, found.representation.label),
        "columns": (source.action_names, names),
    }
    for what, (got, want) in pairs.items():
        if got != want:
            raise DatasetError(f"{what} of {', '.join(folders)} is {got}; the checkpoint was trained on {want}")
    if missing := sorted(set(found.model.views) - set(source.views)):
        there = ", ".join(source.views)
        raise DatasetError(f"views of {', '.join(folders)} are {there}; the checkpoint wants {', '.join(missing)} too")
    return source


def chosen_episodes(source: Source, found: Checkpoint, held_out: bool) -> list[int]:
    """Episodes to measure on: all, or only those of takes that the checkpoint's training held out.

    Raises:
        DatasetError: the checkpoint does not tell which these are, or none is in the data.

    """
    if not held_out:
        return list(range(len(source.episodes)))
    takes = set(found.training.get(HELD_OUT, ()))
    chosen = [e for e, episode in enumerate(source.episodes) if episode.take in takes]
    if not chosen:
        told = f"{len(takes)} takes, none of them in the data" if takes else "nothing of what was held out"
        raise DatasetError(f"the checkpoint tells {told}; measure on demonstrations that it was not trained on")
    return chosen


def table(rows: Sequence[StepsRow]) -> str:
    """The rows as text."""
    head = f"{'N':>4}{'decode':>13}{'equal':>9}{'+-2 bins':>10}{'joint mrad':>12}"
    lines = [head + f"{'tool mm':>9}{'gripper':>9}{'ms':>8}"]
    for row in rows:
        error = row.open_loop
        cells = [(error.joint_rad, 12, 1e3), (error.tcp_m, 9, 1e3), (error.gripper, 9, 1.0)]
        text = "".join("-".rjust(w) if v is None else f"{v * scale:>{w}.3f}" for v, w, scale in cells)
        lines.append(
            f"{row.steps:>4}{row.decode:>13}{row.agreement:>9.3f}{row.within_two:>10.3f}{text}{row.latency_ms:>8.2f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 bench steps`: 0 measured, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="e0 bench steps",
        description="Token agreement, open-loop error and latency against the number of denoising steps.",
        epilog="example: e0 bench steps --checkpoint runs/nano/checkpoint --data data/pick --held-out",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a checkpoint")
    where = "folders of demonstrations (LeRobotDataset or packed; as in the training, for --held-out), or synthetic"
    parser.add_argument("--data", nargs="+", default=["synthetic"], metavar="DIR", help=f"{where} (default: synthetic)")
    held = "only the episodes that the checkpoint's training was validated on (default: all of the data)"
    parser.add_argument("--held-out", action="store_true", help=held)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 10], help="N; the last is the reference")
    parser.add_argument("--noise", choices=("fixed", "redraw"), default="fixed", help="default: fixed")
    how = "how the last step is read, a row each (default: token)"
    parser.add_argument("--decode", choices=get_args(Decode), nargs="+", default=["token"], help=how)
    parser.add_argument("--count", type=int, default=64, help="frames, spread over the data (default: 64)")
    parser.add_argument("--seed", type=int, default=1000, help="of noise and of synthetic scenes (default: 1000)")
    parser.add_argument("--text-file", type=Path, help="PaliGemma's tokenizer file, if the checkpoint uses it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args(argv)
    try:
        found = read_checkpoint(options.checkpoint)
        transform = PolicyTransform.from_json(found.transform, options.text_file)
        source = open_data(options.data, found, options.seed)
        settings = [
            SamplerSettings.of(found.model, steps=n, noise=options.noise, decode=d)
            for d in options.decode
            for n in options.steps
        ]
        model = load_model(found, "cuda" if torch.cuda.is_available() else "cpu")
        chosen = chosen_episodes(source, found, options.held_out)
        dataset = ChunkDataset(source, chosen, transform)
        indices = list(range(0, len(dataset), max(1, len(dataset) // options.count)))[: options.count]
        rows = compare_steps(model, dataset, indices, settings, options.seed)
    except ValueError as error:
        print(f"e0 bench steps: {error}", file=sys.stderr)
        return 2
    print(f"{len(indices)} frames of {len(chosen)} of {len(source.episodes)} episodes")
    print(table(rows))
    if options.json:
        write_json(options.json, [asdict(row) for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
