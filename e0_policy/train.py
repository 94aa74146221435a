"""Train E0: one flat loop. `e0 train --config config/train/synthetic.yaml`

Everything random in a step (data order, augmentation, diffusion times, noise) is a function of seed and step, so a run
that was killed goes on with the same bits: weights, moving average, optimizer and step are all the state there is.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from e0_policy.auxiliary import Auxiliary
from e0_policy.batch import Batch
from e0_policy.checkpoint import Checkpoint, load_model, save_checkpoint
from e0_policy.collate import on_device
from e0_policy.cpu_training import keep_memory
from e0_policy.data_order import DataOrder
from e0_policy.distributed import Workers, accumulate, any_process, mean, parallelize, pick_device, process_group
from e0_policy.insulation import autoregressive_loss
from e0_policy.model import E0Model
from e0_policy.train_batch import Collator, Samples, perturb, step_generator
from e0_policy.train_config import TrainConfig, TrainConfigError, load_config
from e0_policy.train_control import (
    Interrupted,
    RunDone,
    TrainingError,
    add_starting,
    change,
    precision,
    resumes,
    saved_state,
    stop_signal,
)
from e0_policy.train_log import Log
from e0_policy.train_setup import Data, check_rows, fingerprint, initial_checkpoint, load_data
from e0_policy.train_state import (
    Saved,
    TrainStateError,
    fill,
    fill_optimizer,
    full,
    load_part,
    optimizer_tensors,
    save,
)
from e0_policy.validation import OpenLoop, open_loop
from e0_policy.weights import load_pretrained


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    step: int
    loss: float
    validation: OpenLoop | None
    best_validation_loss: float | None
    samples_per_s: float
    output: str


class TrainStep(nn.Module):
    """One forward pass to a scalar, the unit that DDP and FSDP wrap."""

    def __init__(self, model: E0Model, writing_weight: float) -> None:
        super().__init__()
        self.model, self.writing_weight = model, writing_weight

    def forward(
        self, batch: Batch, written: tuple[Tensor, Tensor] | None, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (equation 4 of knowledge insulation where there is a second writing), and its parts."""
        cache = self.model.prefix(batch)
        loss = self.model.loss(batch, generator, cache)
        parts = {"cross_entropy": loss.cross_entropy, "accuracy": loss.accuracy}
        if written is None:
            return loss.total, parts
        writing = autoregressive_loss(self.model, cache, *written)
        return loss.total + self.writing_weight * writing, {**parts, "writing": writing.detach()}


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine from `learning_rate` to `final_learning_rate` at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    low, high = config.final_learning_rate, config.learning_rate
    return low + (high - low) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


@dataclass
class Run:
    """What changes while training, and what it is trained on."""

    config: TrainConfig
    workers: Workers
    data: Data
    model: E0Model
    module: nn.Module  # the model's TrainStep, wrapped for several processes
    ema: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    auxiliary: Auxiliary | None = None
    best_loss: float | None = None  # lowest validation loss so far

    def update(self, step: int, samples: Samples) -> tuple[dict[str, Tensor], float]:
        """One step of the optimizer and of the moving average; returns parts of the loss and the gradient norm.

        Raises:
            TrainingError: the gradient is not finite; nothing was changed.

        """
        rate = learning_rate(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = _gradient(self.module, samples, self.config, step, self.workers)
        if self.auxiliary:
            parts |= self.auxiliary.backward(step, rate)
        clipped = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        norm = float(full(clipped))
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {step + 1}: the gradient norm is {norm} and the loss {float(parts['loss'])}; lower the learning "
                f"rate ({rate:g}) or check the data, then go on from the last state with --resume"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(self.config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), [p.detach() for p in self.model.parameters()], 1.0 - decay)
        return parts, norm

    def validate(self) -> OpenLoop:
        """Open-loop error of the moving average on evenly spaced held-out samples."""
        held_out = self.data.validation
        picks = np.linspace(0, len(held_out) - 1, min(len(held_out), self.config.validation_samples)).astype(int)
        device = self.workers.device
        with self.averaged(), precision(self.config, device):
            return open_loop(self.model, held_out, picks.tolist(), device, seed=self.config.seed)

    def keep_best(self, step: int, result: OpenLoop) -> None:
        """Write `<output>/best` if no validation before had a lower loss."""
        if not any_process(self.best_loss is None or result.loss < self.best_loss, self.workers):
            return
        self.best_loss = result.loss
        ema = {n: full(p) for n, p in self.ema.items()}
        if self.workers.first:
            self._write_checkpoint("best", ema, step, result)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model (gathered, if it is sharded) with its moving average as weights, inside the block."""
        own = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(self.ema[name])
            if isinstance(self.module, FSDPModule):
                self.module.unshard()
            yield
            if isinstance(self.module, FSDPModule):
                self.module.reshard()
            for name, p in self.model.named_parameters():
                p.copy_(own[name])

    def restore(self, saved: Saved) -> None:
        """Fill everything from a saved state."""
        for part, tensors in (("model", dict(self.model.named_parameters())), ("ema", self.ema)):
            for name, value in load_part(saved, part).items():
                fill(tensors[name], value)
        fill_optimizer(self.model, self.optimizer, load_part(saved, "optimizer"))
        if self.auxiliary:
            self.auxiliary.restore(load_part(saved, "optimizer"))
        self.best_loss = saved.meta.get("best_loss")

    def save(self, step: int, result: OpenLoop | None) -> None:
        """Write the state, and the moving average as the policy's checkpoint."""
        config = self.config
        parts = {
            "model": {n: full(p) for n, p in self.model.named_parameters()},
            "ema": {n: full(p) for n, p in self.ema.items()},
            "optimizer": optimizer_tensors(self.model, self.optimizer),
        }
        if self.auxiliary:
            parts["optimizer"] |= self.auxiliary.tensors()
        if not self.workers.first:
            return
        meta: dict[str, Any] = {"config": config.to_dict(), "transform": self.data.transform.to_json()}
        meta |= {"data": fingerprint(self.data.source), "best_loss": self.best_loss}
        self._write_checkpoint("checkpoint", parts["ema"], step, result)
        save(Path(config.output), step, parts, meta, config.keep)  # last: a run is as far as its state

    def _write_checkpoint(self, name: str, ema: dict[str, Tensor], step: int, result: OpenLoop | None) -> None:
        config, source = self.config, self.data.source
        making: dict[str, Any] = {"data": config.to_dict()["data"], "data_sha256": fingerprint(source)}
        making |= {
            "step": step,
            "seed": config.seed,
            "image_px": self.data.image_px,
            "open_loop": asdict(result) if result else None,
        }
        transform, horizon = self.data.transform.to_json(), config.execution_horizon
        what = source.embodiment, source.period_ns, horizon, making
        whole = Checkpoint(config.model, transform, *what, representation=source.representation)
        save_checkpoint(Path(config.output) / name, ema, whole, source.images(0, 0))


def train(config: TrainConfig, *, resume: bool = False, workers: Workers | None = None) -> Result:
    """Run a training to its last step.

    `<output>/checkpoint` is the policy (the moving average) as it is last, `<output>/best` as it was at the lowest
    validation loss; `<output>/state` is for resuming.

    Raises:
        TrainConfigError, DatasetError, NormalizationError, TextTokenError, TransformError: the run cannot start.
        TrainStateError: nothing to resume, or the state is of another run.
        TrainingError: the gradient is not finite.
        Interrupted: stopped by a signal; go on with `resume`.

    """
    workers = workers or Workers(0, 1, pick_device(config.device))
    if workers.device.type == "cpu":
        keep_memory()
    saved = saved_state(config, resume)
    run = prepare(config, workers, saved)
    first = saved.step if saved else 0
    batches = _batches(run, first)
    log = Log(Path(config.output), config, first, workers.first)
    log.start(run.data, sum(p.numel() for p in run.model.parameters()))
    stop = stop_signal()
    loss, result = math.nan, None
    for step in range(first, config.steps):
        parts, norm = run.update(step, next(batches))
        done, last = step + 1, step + 1 == config.steps
        if done % config.log_every == 0 or last:
            loss = log.step(done, mean(parts, workers), learning_rate(config, step), norm)
        if len(run.data.validation) and (done % config.validate_every == 0 or last):
            result = run.validate()
            log.validation(done, result)
            run.keep_best(done, result)
        stopping = any_process(stop(), workers)
        if done % config.save_every == 0 or last or stopping:
            run.save(done, result)
        if stopping and not last:
            raise Interrupted(f"stopped after step {done}; go on with --resume")
    log.close()
    return Result(config.steps, loss, result, run.best_loss, log.samples_per_s, config.output)


def prepare(config: TrainConfig, workers: Workers, saved: Saved | None) -> Run:
    """Data, model, moving average and optimizer, new or from a saved state; errors as in `train`."""
    initial = None if saved else initial_checkpoint(config)
    data = load_data(config, saved.meta["transform"] if saved else initial.transform if initial else None)
    if initial:
        check_rows(initial, data.source)
    if saved and saved.meta["data"] != fingerprint(data.source):
        now = fingerprint(data.source)
        raise TrainStateError(f"the data have fingerprint {now}; the run to resume has {saved.meta['data']}")
    torch.manual_seed(config.seed)
    model = E0Model(config.model).to(workers.device)
    if initial:
        model.load_state_dict(load_model(initial, workers.device).state_dict())
    elif config.initial_weights and not saved:
        report = load_pretrained(model, Path(config.initial_weights))
        if workers.first:
            print(report, flush=True)
    if config.activation_checkpointing:
        for module in model.modules():
            vars(module).update({"checkpointing": True} if "checkpointing" in vars(module) else {})
    if config.compiled:
        model.compile_parts()
    wrapped = parallelize(TrainStep(model, config.writing_weight), config, workers)
    ema = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, config)
    auxiliary = Auxiliary(config, model, workers.world) if config.auxiliary_scenes else None
    run = Run(config, workers, data, model, wrapped, ema, optimizer, auxiliary)
    if saved:
        run.restore(saved)
    return run


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW as pi0 and E0 train with, as one fused operation per step."""
    decay = config.weight_decay
    return torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=decay, fused=True)


def _gradient(
    module: nn.Module, samples: Samples, config: TrainConfig, step: int, workers: Workers
) -> dict[str, Tensor]:
    """Forward and backward of one optimizer step, in micro-batches; their losses and gradients are averaged."""
    whole, written = samples
    size = config.micro_batch or whole.size
    micro_batches = whole.size // size
    sums: dict[str, Tensor] = {}
    for micro in range(micro_batches):
        part = slice(micro * size, (micro + 1) * size)
        batch = Batch(**{name: value[part] for name, value in vars(whole).items()})
        second = None if written is None else tuple(t[part].to(workers.device) for t in written)
        key = (config.seed, step, workers.rank * micro_batches + micro)
        batch = perturb(on_device(batch, workers.device), config, step_generator("cpu", *key, 0))
        last = micro + 1 == micro_batches
        with accumulate(module, last), precision(config, workers.device):
            loss, parts = module(batch, second, step_generator(workers.device, *key, 1))
        with accumulate(module, last):
            (loss / micro_batches).backward()
        for name, value in {"loss": loss.detach(), **parts}.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value / micro_batches
    return sums


def _batches(run: Run, first: int) -> Iterator[Samples]:
    """Batches of this process from step `first` on, without end."""
    config, workers, dataset = run.config, run.workers, run.data.dataset
    share = config.batch_size // workers.world
    if config.micro_batch and share % config.micro_batch:
        raise TrainConfigError(
            f"micro_batch is {config.micro_batch}; it must divide {share}, the samples of each of "
            f"{workers.world} processes"
        )
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=DataOrder(len(dataset), config.batch_size, config.seed, first, workers.rank, workers.world),
        collate_fn=Collator(run.data.transform, run.data.writing),  # type: ignore[arg-type]
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        worker_init_fn=_leave_signals,
    )
    return iter(loader)


def _leave_signals(worker: int) -> None:
    """Ctrl-C reaches readers too; the training process stops them when it has saved its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 train`: 0 done, 1 training failed, 2 wrong input, 130 stopped by a signal with the state saved."""
    parser = argparse.ArgumentParser(
        prog="e0 train",
        description="Train an E0 policy.",
        epilog="Example: e0 train --config config/train/synthetic.yaml --set steps=300; "
        "LIBERO: e0 train --config config/train/libero.yaml --set data=datasets/libero_spatial; "
        "several GPUs: torchrun --nproc-per-node 4 -m e0_policy.train --config config/train/full.yaml",
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see config/train/")
    add_starting(parser)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change settings, as model.depth=2")
    parser.add_argument("--json", type=Path, help="write the final figures to this file")
    arguments = parser.parse_args(argv)
    try:
        config = load_config(arguments.config, dict(change(text) for text in arguments.set))
        with process_group(config.device) as workers:
            result = train(config, resume=resumes(arguments, config), workers=workers)
    except RunDone as done:
        print(f"e0 train: {done}", file=sys.stderr)
        return 0 if arguments.go_on else 2
    except (ValueError, TrainingError) as error:
        print(f"e0 train: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
    except Interrupted as stopped:
        print(f"e0 train: {stopped}", file=sys.stderr)
        return 130
    if arguments.json and workers.first:
        arguments.json.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
