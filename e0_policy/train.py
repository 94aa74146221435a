"""Train E0: one flat loop. `e0 train --config config/train/synthetic.yaml`

Everything random in a step (data order, augmentation, diffusion times, noise) is a function of seed and step, so a run
that was killed goes on with the same bits: weights, moving average, optimizer and step are all the state there is.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from e0_policy.augmentation import without_camera
from e0_policy.auxiliary import Auxiliary
from e0_policy.batch import Batch
from e0_policy.checkpoint import Checkpoint, load_model, save_checkpoint
from e0_policy.collate import on_device
from e0_policy.cpu_training import keep_memory
from e0_policy.data_order import DataOrder
from e0_policy.distributed import (
    Workers,
    accumulate,
    any_process,
    mean,
    parallelize,
    pick_device,
    process_group,
    with_all,
)
from e0_policy.insulation import autoregressive_loss
from e0_policy.learned_seeds import HELD_OUT, LEARNED, learned_seeds, merged
from e0_policy.learner import Learner, learning_rate
from e0_policy.model import E0Model
from e0_policy.selection import idle_words
from e0_policy.train_batch import Collator, Samples, perturb, step_generator
from e0_policy.train_config import TrainConfig, TrainConfigError
from e0_policy.train_control import Interrupted, precision, run_command, saved_state, stop_signal, turns
from e0_policy.train_log import Log
from e0_policy.train_setup import GRIPPER, Data, check_rows, clipped_share, fingerprint, initial_checkpoint, load_data
from e0_policy.train_state import Saved, TrainStateError, gathered, load_part, save
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
            return with_all(self, loss.total), parts
        writing = autoregressive_loss(self.model, cache, *written)
        total = loss.total + self.writing_weight * writing
        return with_all(self, total), {**parts, "writing": writing.detach()}


@dataclass
class Run:
    """What changes while training, and what it is trained on."""

    config: TrainConfig
    workers: Workers
    data: Data
    model: E0Model
    module: nn.Module  # the model's TrainStep, wrapped for several processes
    learner: Learner
    auxiliary: Auxiliary | None = None
    best_loss: float | None = None  # lowest validation loss so far
    learned: Mapping[str, str] = field(default_factory=dict)  # seeds by task, those of its start too
    open_loop: dict[str, Any] | None = None  # of the last validation, and after which `step` it was

    def update(self, step: int, samples: Samples) -> tuple[dict[str, Tensor], float]:
        """One step of the optimizer and of the moving average; returns parts of the loss and the gradient norm.

        Raises:
            TrainingError: the gradient is not finite; nothing was changed.

        """
        parts = _gradient(self.module, samples, self.config, step, self.workers)
        if self.auxiliary:
            parts |= self.auxiliary.backward(step, learning_rate(self.config, step))
        return parts, self.learner.descend(step, parts["loss"])

    def validate(self, step: int) -> OpenLoop:
        """Open-loop error of the moving average after `step` on evenly spaced held-out samples."""
        held_out = self.data.validation
        picks = np.linspace(0, len(held_out) - 1, min(len(held_out), self.config.validation_samples)).astype(int)
        device = self.workers.device
        with self.averaged(), precision(self.config, device):
            result = open_loop(self.model, held_out, picks.tolist(), device, seed=self.config.seed)
        self.open_loop = {"step": step, **asdict(result)}
        return result

    def keep_best(self, step: int, result: OpenLoop) -> None:
        """Write `<output>/best` if no validation before had a lower loss."""
        if not any_process(self.best_loss is None or result.loss < self.best_loss, self.workers):
            return
        self.best_loss = result.loss
        ema = gathered(self.learner.ema.items(), self.workers.first)
        if self.workers.first:
            self._write_checkpoint("best", ema, step)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model (gathered, if it is sharded) with its moving average as weights, inside the block."""
        with self.learner.averaged():
            if isinstance(self.module, FSDPModule):
                self.module.unshard()
            yield
            if isinstance(self.module, FSDPModule):
                self.module.reshard()

    def restore(self, saved: Saved) -> None:
        """Fill everything from a saved state."""
        self.learner.restore(saved)
        if self.auxiliary:
            self.auxiliary.restore(load_part(saved, "optimizer"))
        self.best_loss = saved.meta.get("best_loss")

    def save(self, step: int) -> None:
        """Write the state, and the moving average as the policy's checkpoint."""
        config, parts = self.config, self.learner.tensors(self.workers.first)
        if not self.workers.first:
            return
        if self.auxiliary:
            parts["optimizer"] |= self.auxiliary.tensors()
        meta: dict[str, Any] = {"config": config.to_dict(), "transform": self.data.transform.to_json()}
        meta |= {"data": fingerprint(self.data.source), "best_loss": self.best_loss, LEARNED: self.learned}
        self._write_checkpoint("checkpoint", parts["ema"], step)
        save(Path(config.output), step, parts, meta, config.keep)  # last: a run is as far as its state

    def _write_checkpoint(self, name: str, ema: dict[str, Tensor], step: int) -> None:
        config, source = self.config, self.data.source
        making: dict[str, Any] = {"data": config.to_dict()["data"], "data_sha256": fingerprint(source)}
        making |= {
            LEARNED: self.learned,
            HELD_OUT: self.data.validation.takes,
            "step": step,
            "seed": config.seed,
            "image_px": self.data.image_px,
            "open_loop": self.open_loop,
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
    if workers.first:
        log.say(_summary(run))
    stop = stop_signal()
    loss, result = math.nan, None
    for turn in turns(config, first):
        parts, norm = run.update(turn.step, next(batches))
        if turn.logs:
            loss = log.step(turn.done, mean(parts, workers), learning_rate(config, turn.step), norm)
        if turn.validates and len(run.data.validation):
            result = run.validate(turn.done)
            log.validation(turn.done, result.figures, str(result))
            run.keep_best(turn.done, result)
        stopping = any_process(stop(), workers)
        if turn.saves or stopping:
            run.save(turn.done)
        if stopping and not turn.last:
            raise Interrupted(f"stopped after step {turn.done}; go on with --resume")
    log.close()
    return Result(config.steps, loss, result, run.best_loss, log.samples_per_s, config.output)


def _summary(run: Run) -> str:
    data, config = run.data, run.config
    text = (
        f"{run.learner.parameters / 1e6:.2f} M parameters; {len(data.dataset)} samples of {data.source.embodiment} to "
        f"train on, {len(data.validation)} held out; {clipped_share(data.dataset):.2%} of the action values clip"
    )
    if config.drop_idle_rad:
        joints = [name != GRIPPER for name in data.source.action_names]
        text += f"\n{idle_words(data.source, joints, config.drop_idle_rad)}"
    guessed = without_camera(config.augmentation, config.cameras, config.model.views) if config.augment else ()
    if guessed:
        text += (
            f"\nwarning: viewpoints of {', '.join(guessed)} are perturbed as if the vertical field of view were "
            "60 degrees; give its intrinsics as cameras, or augmentation.spherical_probability: 0"
        )
    return text


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
    model.columns = data.transform.columns
    if initial:
        model.load_state_dict(load_model(initial, workers.device).state_dict())
    elif config.initial_weights and not saved:
        report = load_pretrained(model, Path(config.initial_weights))
        if workers.first:
            print(report, flush=True)
    if config.activation_checkpointing:
        model.checkpoint_activations()
    if config.compiled:
        model.compile_parts()
    wrapped = parallelize(TrainStep(model, config.writing_weight), config, workers)
    auxiliary = Auxiliary(config, model, workers.world) if config.auxiliary_scenes else None
    before: Mapping[str, Any] = saved.meta if saved else initial.training if initial else {}
    learned = merged(before.get(LEARNED, {}), learned_seeds(data.source.episodes))
    run = Run(config, workers, data, model, wrapped, Learner(model, config), auxiliary, learned=learned)
    if saved:
        run.restore(saved)
    return run


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
    """Ctrl-C and a scheduler's SIGTERM reach readers too; they end with the training process, which saves its state."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 train`; its exit status is `run_command`'s."""
    example = (
        "e0 train --config config/train/synthetic.yaml --set steps=300; "
        "LIBERO: e0 train --config config/train/libero.yaml --set data=datasets/libero_spatial; "
        "several GPUs: torchrun --nproc-per-node 4 -m e0_policy.train --config config/train/full.yaml"
    )
    return run_command("e0 train", "Train an E0 policy.", example, _start, argv)


def _start(config: TrainConfig, resume: bool) -> dict[str, Any] | None:
    with process_group(config.device) as workers:
        result = train(config, resume=resume, workers=workers)
    return asdict(result) if workers.first else None


if __name__ == "__main__":
    sys.exit(main())
