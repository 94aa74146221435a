"""Teach an image encoder where things are, before there is a policy: `e0 pretrain --config config/train/pretrain.yaml`

The encoder and the projector of a model learn to locate object and goal in random scenes (`e0 scenes`), by positions
that only a simulator knows. `<output>/encoder.safetensors` is what `e0 train` takes as `initial_weights`; the heads
that read the positions are thrown away. Settings are those of training; those of demonstrations have no effect.
"""

from __future__ import annotations

import sys
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
from e0_policy.files import sha256, sync, write_json
from e0_policy.learner import Learner, learning_rate
from e0_policy.localisation import Localiser, jittered, location_loss
from e0_policy.model import E0Model
from e0_policy.scene_data import METRES, TARGETS, SceneData
from e0_policy.train_batch import step_generator
from e0_policy.train_config import TrainConfig, TrainConfigError
from e0_policy.train_control import Interrupted, precision, run_command, saved_state, stop_signal, turns
from e0_policy.train_log import Log
from e0_policy.train_state import Saved, TrainStateError, full, save
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
    model: E0Model
    heads: Localiser
    learner: Learner  # of encoder, projector and heads

    def update(self, step: int, picks: Sequence[int]) -> tuple[float, float]:
        """One step of the optimizer and of the moving average on these training scenes; returns loss and gradient norm.

        Raises:
            TrainingError: the gradient is not finite; nothing was changed.

        """
        config = self.config
        rows, device = self.training[np.asarray(picks)], self.shift.device
        generator = step_generator("cpu", config.seed, step, 0)
        images = jittered(self.scenes.images(rows), config, generator).to(device)
        seen = torch.rand(len(rows), len(self.scenes.views), generator=generator) >= config.view_dropout
        targets = (self.scenes.targets[rows].to(device) - self.shift) / self.scale
        with precision(config, device):
            located = self.heads(images, seen.to(device))
        loss = location_loss(located, targets)
        loss.backward()
        norm = self.learner.descend(step, loss)
        return float(loss.detach()), norm

    def errors(self) -> dict[str, Errors]:
        """Errors of the moving average on held-out scenes, by what is looked at.

        `<view>` is that view alone, read from its grid, key points and flat token; `1 views`, `2 views`, ... are the
        joint head with the first views alone.
        """
        found: dict[str, list[Tensor]] = {}
        with self.learner.averaged():
            for start in range(0, len(self.held_out), 250):
                for looked, located in self._look(self.held_out[start : start + 250]):
                    found.setdefault(looked, []).append(located)
        located_m = {name: torch.cat(parts) * self.scale + self.shift for name, parts in found.items()}
        return {name: self._errors_mm(values.cpu()) for name, values in located_m.items()}

    def _look(self, rows: NDArray[np.int64]) -> Iterator[tuple[str, Tensor]]:
        """What is found in these scenes, by what is looked at."""
        images = self.scenes.images(rows).to(self.shift.device)
        for count in range(1, images.shape[1] + 1):
            seen = (torch.arange(images.shape[1]) < count).expand(len(rows), -1).to(images.device)
            located = self.heads(images, seen)
            yield f"{count} view{'s' * (count > 1)}", located.joint
        for index, view in enumerate(self.scenes.views):
            yield view, located.views[:, index].mean(1)

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

    def report(self, step: int, errors: Mapping[str, Errors]) -> dict[str, Any]:
        """What `localisation.json` tells of the errors after `step`."""
        return {"step": step, "scenes": len(self.training), "held_out": len(self.held_out), "errors_mm": errors}

    def save(self, step: int, report: Mapping[str, Any] | None) -> None:
        """Write the state, the moving average of encoder and projector for `e0 train`, and the last report."""
        output = Path(self.config.output)
        names = ("vision.", "projector.")
        with self.learner.averaged():
            tensors = {name: full(p) for name, p in named_slots(self.model).items() if name.startswith(names)}
        output.mkdir(parents=True, exist_ok=True)
        partial = output / f".{ENCODER}"
        save_file(tensors, str(partial))
        sync(partial)
        partial.replace(output / ENCODER)
        if report is not None:
            write_json(output / REPORT, report)
        about = {"config": self.config.to_dict(), "data": identity(self.config)}
        save(output, step, self.learner.tensors(), about, self.config.keep)  # last: a run is as far as its state


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
    module = nn.ModuleDict({"vision": model.vision, "projector": model.projector, "heads": heads})
    learner = Learner(module, config, fused=False)
    shift, scale = scenes.normalization(training, device)
    run = Pretraining(config, scenes, training, held_out, shift, scale, model, heads, learner)
    if saved:
        learner.restore(saved)
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
    log = Log(Path(config.output), config, first, active=True)
    log.say(
        f"{run.learner.parameters / 1e6:.2f} M parameters; {len(run.training)} scenes, {len(run.held_out)} held out"
    )
    stop, report, losses = stop_signal(), None, []
    for turn in turns(config, first):
        loss, norm = run.update(turn.step, next(order))
        losses.append(loss)
        if turn.logs:
            log.step(turn.done, {"loss": float(np.mean(losses))}, learning_rate(config, turn.step), norm)
            losses = []
        if turn.validates and len(run.held_out):
            errors = run.errors()
            report = run.report(turn.done, errors)
            log.validation(turn.done, _distances(errors), "\n".join(("", *table(errors))))
        stopping = stop()
        if turn.saves or stopping:
            run.save(turn.done, report)
        if stopping and not turn.last:
            raise Interrupted(f"stopped after step {turn.done}; go on with --resume")
    log.close()
    return report["errors_mm"] if report else {}


def _distances(errors: Mapping[str, Errors]) -> dict[str, float]:
    """Mean distances [mm], flat."""
    return {
        f"{looked}/{task}/{thing}_mm": error["distance"]
        for looked, tasks in errors.items()
        for task, things in tasks.items()
        for thing, error in things.items()
    }


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
    """`e0 pretrain`; its exit status is `run_command`'s."""
    what = "Pretrain a policy's image encoder on random scenes."
    example = "e0 pretrain --config config/train/pretrain.yaml --set data=data/scenes"
    return run_command("e0 pretrain", what, example, lambda config, resume: pretrain(config, resume=resume), argv)


if __name__ == "__main__":
    sys.exit(main())
