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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from e0_policy.augmentation import augment, draw_augmentation, homographies
from e0_policy.batch import Batch
from e0_policy.checkpoint import Checkpoint, load_model, save_checkpoint
from e0_policy.collate import on_device, stack
from e0_policy.dataset import ChunkDataset, DataOrder, split_episodes
from e0_policy.diffusion import draw_committed
from e0_policy.distributed import Workers, accumulate, any_process, mean, parallelize, pick_device, process_group
from e0_policy.insulation import ActionWriting, autoregressive_loss
from e0_policy.model import E0Model
from e0_policy.train_config import TrainConfig, TrainConfigError, load_config
from e0_policy.train_log import Log
from e0_policy.train_setup import fingerprint, fit_transform, initial_checkpoint, make_writing, open_source
from e0_policy.train_state import (
    TrainStateError,
    fill,
    fill_optimizer,
    full,
    load_part,
    newest,
    optimizer_tensors,
    save,
)
from e0_policy.transforms import ModelInput, PolicyTransform, Targets
from e0_policy.validation import OpenLoop, open_loop
from e0_policy.weights import load_pretrained

FREE_ON_RESUME = (
    "output",
    "device",
    "workers",
    "log_every",
    "validate_every",
    "validation_samples",
    "save_every",
    "keep",
)
"""Settings that may differ between a run and its resumption."""

Samples = tuple[Batch, "tuple[Tensor, Tensor] | None"]


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class Interrupted(Exception):
    """Stopped by SIGTERM or SIGINT, with the state saved."""


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    step: int
    loss: float
    validation: OpenLoop | None
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


@dataclass
class Collator:
    """Samples to a batch on the CPU, in the process that reads them."""

    transform: PolicyTransform
    writing: ActionWriting | None

    def __call__(self, samples: Sequence[tuple[ModelInput, Targets]]) -> Samples:
        """A batch, and the second writing of its actions."""
        inputs, targets = zip(*samples, strict=True)
        if self.writing is None:
            return stack(inputs, targets), None
        real = self.transform.columns
        chunks = [self.transform.tokenizer.decode(t.tokens)[:, :real] for t in targets]
        return stack(inputs, targets), self.writing.write(chunks)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine from `learning_rate` to `final_learning_rate` at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    low, high = config.final_learning_rate, config.learning_rate
    return low + (high - low) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def step_generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator whose stream is a function of the key: seed, step, micro-batch over all processes, purpose."""
    words = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(words[0]) << 31 ^ int(words[1]))


def perturb(batch: Batch, config: TrainConfig, generator: torch.Generator) -> Batch:
    """Augmented images with their offsets, dropped views and random clean prefixes; the batch is on its device."""
    model, device = config.model, batch.images.device
    draw = draw_augmentation(config.augmentation, model.views, batch.size, generator)
    keep = torch.rand(batch.view_mask.shape, generator=generator) >= config.view_dropout
    committed = draw_committed(batch.size, model.committed_max, generator)
    mask = batch.view_mask & keep.to(device)
    mask = torch.where(mask.any(1, keepdim=True), mask, batch.view_mask)
    changed = replace(batch, view_mask=mask, committed=committed.to(device))
    if not config.augment:
        return changed
    maps = homographies(draw, config.cameras, model.views, model.image_size)
    return replace(changed, images=augment(batch.images, draw, maps), view_offset=draw.offset.float().to(device))


@contextmanager
def averaged(module: nn.Module, model: E0Model, ema: dict[str, Tensor]) -> Iterator[None]:
    """The model (gathered, if `module` shards it) with its moving average as weights, inside the block."""
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(ema[name])
        if isinstance(module, FSDPModule):
            module.unshard()
        yield
        if isinstance(module, FSDPModule):
            module.reshard()
        for name, p in model.named_parameters():
            p.copy_(own[name])


def train(config: TrainConfig, *, resume: bool = False, workers: Workers | None = None) -> Result:
    """Run a training to its last step.

    `<output>/checkpoint` is the policy (the moving average); `<output>/state` is for resuming.

    Raises:
        TrainConfigError, DatasetError, NormalizationError, TextTokenError, TransformError: the run cannot start.
        TrainStateError: nothing to resume, or the state is of another run.
        TrainingError: the loss is not finite.
        Interrupted: stopped by a signal; resume with `resume`.

    """
    workers = workers or Workers(0, 1, pick_device(config.device))
    output, device = Path(config.output), workers.device
    saved = newest(output) if resume else None
    if saved is None and (output / "state").exists():
        raise TrainStateError(f"{output} holds the state of a run; resume it with --resume, or give another output")
    source = open_source(config)
    training, held_out = split_episodes(len(source.episodes), config.validation_fraction, config.seed)
    _same_run(config, fingerprint(source), saved.meta if saved else None)
    initial = None if saved else initial_checkpoint(config)
    known: Mapping[str, Any] | None = saved.meta["transform"] if saved else initial.transform if initial else None
    text_file = Path(config.text_tokenizer) if config.text_tokenizer else None
    transform = PolicyTransform.from_json(known, text_file) if known else fit_transform(config, source, training)
    dataset = ChunkDataset(source, training, transform)
    validation = ChunkDataset(source, held_out, transform)
    writing = make_writing(config, dataset)

    torch.manual_seed(config.seed)
    model = E0Model(config.model).to(device)
    if initial:
        model.load_state_dict(load_model(initial, device).state_dict())
    elif config.initial_weights and not saved:
        report = load_pretrained(model, Path(config.initial_weights))
        if workers.first:
            print(report, flush=True)
    if config.activation_checkpointing:
        for module in model.modules():
            vars(module).update({"checkpointing": True} if "checkpointing" in vars(module) else {})
    step_module = parallelize(TrainStep(model, config.writing_weight), config, workers)
    ema = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=config.weight_decay)
    first = 0
    if saved:
        first = saved.step
        for part, tensors in (("model", dict(model.named_parameters())), ("ema", ema)):
            for name, value in load_part(saved, part).items():
                fill(tensors[name], value)
        fill_optimizer(model, optimizer, load_part(saved, "optimizer"))

    share = config.batch_size // workers.world
    if config.micro_batch and share % config.micro_batch:
        raise TrainConfigError(
            f"micro_batch is {config.micro_batch}; it must divide {share}, the samples of each of "
            f"{workers.world} processes"
        )
    order = DataOrder(len(dataset), config.batch_size, config.seed, first, workers.rank, workers.world)
    loader = iter(_loader(config, dataset, order, Collator(transform, writing)))
    log = Log(output, config, first, workers.first)
    stop = _stop_signal()
    meta: dict[str, Any] = {"config": config.to_dict(), "transform": transform.to_json(), "data": fingerprint(source)}

    result: OpenLoop | None = None

    def save_state(step: int) -> None:
        parts = {
            "model": {n: full(p) for n, p in model.named_parameters()},
            "ema": {n: full(p) for n, p in ema.items()},
            "optimizer": optimizer_tensors(model, optimizer),
        }
        if not workers.first:
            return
        save(output, step, parts, meta, config.keep)
        making: dict[str, Any] = {"data": config.data, "data_sha256": meta["data"], "step": step, "seed": config.seed}
        if result:
            making["open_loop"] = asdict(result)
        whole = Checkpoint(
            config.model, meta["transform"], source.embodiment, source.period_ns, config.execution_horizon, making
        )
        save_checkpoint(output / "checkpoint", parts["ema"], whole)

    loss, saved_at = math.nan, first
    for step in range(first, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        parts = _step(step_module, next(loader), config, step, workers)
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if not math.isfinite(float(norm)):
            raise TrainingError(
                f"step {step + 1}: the gradient norm is {float(norm)} and the loss {float(parts['loss'])}; lower the "
                f"learning rate ({learning_rate(config, step):g}), or check the data. The last state is of {saved_at}"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.values()), [p.detach() for p in model.parameters()], 1.0 - decay)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            loss = log.step(done, mean(parts, workers), learning_rate(config, step), float(norm))
        if held_out and (done % config.validate_every == 0 or done == config.steps):
            picks = np.linspace(0, len(validation) - 1, min(len(validation), config.validation_samples)).astype(int)
            with averaged(step_module, model, ema), _precision(config, device):
                result = open_loop(model, validation, picks.tolist(), device, seed=config.seed)
            log.validation(done, result)
        stopping = any_process(stop(), workers)
        if done % config.save_every == 0 or done == config.steps or stopping:
            save_state(done)
            saved_at = done
        if stopping and done < config.steps:
            raise Interrupted(f"stopped after step {done}; go on with --resume")
    log.close()
    return Result(config.steps, loss, result, log.samples_per_s, str(output))


def _step(module: nn.Module, samples: Samples, config: TrainConfig, step: int, workers: Workers) -> dict[str, Tensor]:
    """Forward and backward of one optimizer step, in micro-batches; gradients are means over all samples."""
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
        with accumulate(module, last), _precision(config, workers.device):
            loss, parts = module(batch, second, step_generator(workers.device, *key, 1))
        with accumulate(module, last):
            (loss / micro_batches).backward()
        for name, value in {"loss": loss.detach(), **parts}.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value / micro_batches
    return sums


def _precision(config: TrainConfig, device: torch.device) -> AbstractContextManager[None]:
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def _loader(config: TrainConfig, dataset: ChunkDataset, order: DataOrder, collator: Collator) -> DataLoader[Any]:
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=order,
        collate_fn=collator,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        worker_init_fn=_leave_signals,
    )


def _leave_signals(worker: int) -> None:
    """Ctrl-C reaches readers too; the training process stops them when it has saved its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _same_run(config: TrainConfig, data: str, meta: Any) -> None:
    if meta is None:
        return
    before, now = meta["config"], json.loads(json.dumps(config.to_dict()))
    for name in now:
        if name not in FREE_ON_RESUME and before.get(name) != now[name]:
            raise TrainStateError(f"{name} is {now[name]!r}; the run to resume has {before.get(name)!r}")
    if meta["data"] != data:
        raise TrainStateError(f"the data have fingerprint {data}; the run to resume has {meta['data']}")


def _stop_signal() -> Any:
    """A function that tells whether SIGTERM or SIGINT has come; a second SIGINT is not caught."""
    stopped = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        signal.signal(number, signal.SIG_DFL)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
    except ValueError:
        pass  # not in the main thread: whoever owns it handles signals
    return lambda: bool(stopped)


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 train`: 0 done, 1 training failed, 2 wrong input, 130 stopped by a signal with the state saved."""
    parser = argparse.ArgumentParser(
        prog="e0 train",
        description="Train an E0 policy.",
        epilog="Example: e0 train --config config/train/synthetic.yaml --set steps=300; "
        "several GPUs: torchrun --nproc-per-node 4 -m e0_policy.train --config config/train/full.yaml",
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see config/train/")
    parser.add_argument("--resume", action="store_true", help="go on from the newest state below the output folder")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change settings, as model.depth=2")
    parser.add_argument("--json", type=Path, help="write the final figures to this file")
    arguments = parser.parse_args(argv)
    try:
        config = load_config(arguments.config, dict(_change(text) for text in arguments.set))
        with process_group(config.device) as workers:
            result = train(config, resume=arguments.resume, workers=workers)
    except (ValueError, TrainingError) as error:
        print(f"e0 train: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
    except Interrupted as stopped:
        print(f"e0 train: {stopped}", file=sys.stderr)
        return 130
    if arguments.json and workers.first:
        arguments.json.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return 0


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise TrainConfigError(f"--set {text}: NAME=VALUE is needed")
    return name, yaml.safe_load(value)


if __name__ == "__main__":
    sys.exit(main())
