"""Teach an image encoder where things are, before there is a policy: `e0 pretrain --config config/train/pretrain.yaml`

The encoder and the projector of a model learn to locate object and goal in random scenes (`e0 scenes`), by positions
that only a simulator knows. `<output>/encoder.safetensors` is what `e0 train` takes as `initial_weights`; the heads
that read the positions are thrown away. Settings are those of training; those of demonstrations have no effect.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from e0_policy.data_order import DataOrder, split_episodes
from e0_policy.distributed import pick_device
from e0_policy.files import sha256, sync
from e0_policy.localisation import Localiser, jittered, location_loss
from e0_policy.model import E0Model
from e0_policy.scene_data import METRES, TARGETS, SceneData
from e0_policy.train import learning_rate
from e0_policy.train_batch import step_generator
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
from e0_policy.train_state import Saved, TrainStateError, fill_optimizer, full, load_part, optimizer_tensors, save
from e0_policy.weights import load_pretrained, named_slots

ENCODER, REPORT = "encoder.safetensors", "localisation.json"
Errors = dict[str, dict[str, dict[str, float]]]
"""Mean absolute error [mm] by task, thing and axis; `distance` is the mean Euclidean one, `median` its median."""


@dataclass
class Pretraining:
    """What changes in pretraining, and the scenes."""

    config: TrainConfig
    scenes: SceneData
    training: NDArray[np.int64]
    held_out: NDArray[np.int64]
    shift: Tensor
    scale: Tensor
    learner: nn.ModuleDict  # encoder, projector and heads
    model: E0Model
    ema: dict[str, Tensor]
    optimizer: torch.optim.Optimizer

    @property
    def localiser(self) -> Localiser:
        """The heads."""
        heads = self.learner["heads"]
        assert isinstance(heads, Localiser)
        return heads

    def update(self, step: int, picks: Sequence[int]) -> float:
        """One step of the optimizer and of the moving average on these training scenes; returns the loss.

        Raises:
            TrainingError: the gradient is not finite; nothing was changed.

        """
        config, rate = self.config, learning_rate(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows, device = self.training[np.asarray(picks)], self.shift.device
        generator = step_generator("cpu", config.seed, step, 0)
        images = jittered(self.scenes.images(rows), config, generator).to(device)
        seen = torch.rand(len(rows), len(self.scenes.views), generator=generator) >= config.view_dropout
        targets = (self.scenes.targets[rows].to(device) - self.shift) / self.scale
        with precision(config, device):
            located = self.localiser(images, seen.to(device))
        loss = location_loss(located, targets)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.learner.parameters(), config.clip_norm))
        if not math.isfinite(norm):
            raise TrainingError(f"step {step + 1}: the gradient norm is {norm}; lower the learning rate ({rate:g})")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), [p.detach() for p in self.learner.parameters()], 1.0 - decay)
        return float(loss.detach())

    @torch.no_grad()
    def errors(self) -> dict[str, Errors]:
        """Errors of the moving average on held-out scenes, by what is looked at.

        `<view>` is that view alone, read from its grid, key points and flat token; `1 views`, `2 views`, ... are the
        joint head with the first views alone.
        """
        own = {name: p.detach().clone() for name, p in self.learner.named_parameters()}
        fill_parameters(self.learner, self.ema)
        found: dict[str, list[Tensor]] = {}
        for start in range(0, len(self.held_out), 250):
            rows = self.held_out[start : start + 250]
            images = self.scenes.images(rows).to(self.shift.device)
            for count in range(1, images.shape[1] + 1):
                seen = (torch.arange(images.shape[1]) < count).expand(len(rows), -1).to(images.device)
                located = self.localiser(images, seen)
                found.setdefault(f"{count} view{'s' * (count > 1)}", []).append(located.joint)
            for index, view in enumerate(self.scenes.views):
                found.setdefault(view, []).append(located.views[:, index].mean(1))
        fill_parameters(self.learner, own)
        located_m = {name: torch.cat(parts) * self.scale + self.shift for name, parts in found.items()}
        return {name: self._errors_mm(values.cpu()) for name, values in located_m.items()}

    def _errors_mm(self, located: Tensor) -> Errors:
        targets, task = self.scenes.targets[self.held_out], self.scenes.task[self.held_out]
        errors: Errors = {}
        for index, name in enumerate(self.scenes.tasks):
            mine = torch.from_numpy(task == index)
            if not bool(mine.any()):
                continue
            off_mm = (located[mine, :METRES] - targets[mine, :METRES]) * 1e3
            errors[name] = {TARGETS[i].rpartition("_")[0]: _spread(off_mm[:, i : i + 3]) for i in range(0, METRES, 3)}
            near = targets[mine, 6:9].norm(dim=1) < 0.06
            if bool(near.any()):
                errors[name]["object_in_tool_within_60_mm"] = _spread(off_mm[near, 6:9])
        return errors

    def save(self, step: int, errors: Mapping[str, Errors] | None) -> None:
        """Write the state, and the moving average of encoder and projector for `e0 train`."""
        output = Path(self.config.output)
        parts = {
            "model": {name: full(p) for name, p in self.learner.named_parameters()},
            "ema": {name: full(p) for name, p in self.ema.items()},
            "optimizer": optimizer_tensors(self.learner, self.optimizer),
        }
        own = {name: p.detach().clone() for name, p in self.learner.named_parameters()}
        fill_parameters(self.learner, self.ema)
        names = ("vision.", "projector.")
        tensors = {name: full(p) for name, p in named_slots(self.model).items() if name.startswith(names)}
        fill_parameters(self.learner, own)
        output.mkdir(parents=True, exist_ok=True)
        partial = output / f".{ENCODER}"
        save_file(tensors, str(partial))
        sync(partial)
        partial.replace(output / ENCODER)
        if errors is not None:
            report = {"step": step, "scenes": len(self.training), "held_out": len(self.held_out), "errors_mm": errors}
            (output / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        about = {"config": self.config.to_dict(), "data": identity(self.config)}
        save(output, step, parts, about, self.config.keep)  # last: a run is as far as its state


def fill_parameters(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values into all parameters of a module."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(values[name])


def identity(config: TrainConfig) -> str:
    """SHA-256 of what the scenes are: a resumed run must have the same."""
    return sha256(_folder(config) / "index.json")


def _folder(config: TrainConfig) -> Path:
    if not isinstance(config.data, str):
        raise TrainConfigError(f"data is {config.data!r}; pretraining takes one folder of scenes")
    return Path(config.data)


def prepare(config: TrainConfig, saved: Saved | None) -> Pretraining:
    """Scenes, learner and optimizer, new or from a saved state; errors as in `pretrain`."""
    scenes = SceneData(_folder(config), config.model.views, config.model.image_size)
    if saved and saved.meta["data"] != identity(config):
        raise TrainStateError(f"{config.data} is not what the run to resume was trained on")
    training, held_out = (np.array(part) for part in split_episodes(len(scenes), config.validation_fraction, 0))
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    model = E0Model(config.model).to(device)
    if config.initial_weights and not saved:
        print(load_pretrained(model, Path(config.initial_weights)), flush=True)
    heads = Localiser(model, len(TARGETS)).to(device)
    learner = nn.ModuleDict({"vision": model.vision, "projector": model.projector, "heads": heads})
    ema = {name: p.detach().clone() for name, p in learner.named_parameters()}
    optimizer = torch.optim.AdamW(learner.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=config.weight_decay)
    shift, scale = scenes.normalization(training, device)
    run = Pretraining(config, scenes, training, held_out, shift, scale, learner, model, ema, optimizer)
    if saved:
        fill_parameters(learner, load_part(saved, "model"))
        run.ema.update(load_part(saved, "ema"))
        fill_optimizer(learner, optimizer, load_part(saved, "optimizer"))
    return run


def pretrain(config: TrainConfig, *, resume: bool = False) -> dict[str, Errors]:
    """Pretrain to the last step; returns the held-out errors.

    Raises:
        TrainConfigError, DatasetError, ValueError: the run cannot start.
        TrainStateError: nothing to resume, or the state is of another run.
        TrainingError: the gradient is not finite.
        Interrupted: stopped by a signal; go on with `resume`.

    """
    saved = saved_state(config, resume)
    run = prepare(config, saved)
    first = saved.step if saved else 0
    order = iter(DataOrder(len(run.training), config.batch_size, config.seed, first))
    parameters = sum(p.numel() for p in run.learner.parameters()) / 1e6
    print(f"{parameters:.2f} M parameters; {len(run.training)} scenes, {len(run.held_out)} held out", flush=True)
    stop, errors = stop_signal(), None
    losses, since = [], time.monotonic()
    for step in range(first, config.steps):
        losses.append(run.update(step, next(order)))
        done, last = step + 1, step + 1 == config.steps
        if done % config.log_every == 0 or last:
            rate = len(losses) * config.batch_size / max(time.monotonic() - since, 1e-9)
            print(f"{done}/{config.steps}  loss {np.mean(losses):.4f}  {rate:.0f} scenes/s", flush=True)
            losses, since = [], time.monotonic()
        if len(run.held_out) and (done % config.validate_every == 0 or last):
            errors = run.errors()
            print("\n".join(table(errors)), flush=True)
            since = time.monotonic()
        if done % config.save_every == 0 or last or stop():
            run.save(done, errors)
        if stop() and not last:
            raise Interrupted(f"stopped after step {done}; go on with --resume")
    return errors or {}


def table(errors: Mapping[str, Errors]) -> Iterator[str]:
    """Lines of held-out errors."""
    for looked, tasks in errors.items():
        for task, things in tasks.items():
            figures = "  ".join(
                f"{thing} {e['distance']:.1f} (median {e['median']:.1f})" for thing, e in things.items()
            )
            yield f"  {looked:<8}{task:<14}mm: {figures}"


def _spread(off_mm: Tensor) -> dict[str, float]:
    distance = off_mm.norm(dim=1)
    axes = dict(zip("xyz", off_mm.abs().mean(0).tolist(), strict=True))
    return {**axes, "distance": float(distance.mean()), "median": float(distance.median())}


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 pretrain`: 0 done, 1 training failed, 2 wrong input, 130 stopped by a signal with the state saved."""
    parser = argparse.ArgumentParser(
        prog="e0 pretrain",
        description="Pretrain a policy's image encoder on random scenes.",
        epilog="Example: e0 pretrain --config config/train/pretrain.yaml --set data=data/scenes",
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see config/train/pretrain.yaml")
    add_starting(parser)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change settings, as steps=500")
    parser.add_argument("--json", type=Path, help="write the held-out errors to this file")
    arguments = parser.parse_args(argv)
    try:
        changes: dict[str, Any] = dict(change(text) for text in arguments.set)
        config = load_config(arguments.config, changes)
        errors = pretrain(config, resume=resumes(arguments, config))
    except RunDone as done:
        print(f"e0 pretrain: {done}", file=sys.stderr)
        return 0 if arguments.go_on else 2
    except (ValueError, TrainingError) as error:
        print(f"e0 pretrain: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
    except Interrupted as stopped:
        print(f"e0 pretrain: {stopped}", file=sys.stderr)
        return 130
    if arguments.json:
        arguments.json.write_text(json.dumps(errors, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
