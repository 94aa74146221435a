"""A checkpoint as a policy: observations of the robot in, action rows out: absolute ones, or a benchmark's own.

policy = load_policy("checkpoints/pick_cube", steps=4)
output = policy.infer(observation, plan)

Committed rows of the plan in force enter the model as clean tokens and come out unchanged, so a new plan continues the
old one; with several samples the one closest to the plan in force is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from e0_policy import diffusion
from e0_policy.batch import Batch
from e0_policy.checkpoint import Checkpoint, load_model, read_checkpoint
from e0_policy.collate import on_device, stack
from e0_policy.diffusion import NoiseDraw, Sample, SamplerSettings
from e0_policy.embodiment import load_embodiment
from e0_policy.engine import Engine, supports
from e0_policy.model import E0Model
from e0_policy.model_config import ModelConfigError
from e0_policy.policy import Plan, PolicyOutput
from e0_policy.transforms import PolicyTransform, Targets
from e0_policy.types import FloatArray, Observation, Representation


class InferenceError(ValueError):
    """An observation or a setting does not fit the policy; the message says what was got and what is needed."""


@dataclass(frozen=True)
class InferenceSettings:
    """Run-time settings beside those of the sampler (`SamplerSettings`).

    Attributes:
        engine: "fast", "eager" for the reference, which also runs where the fast path lacks something, or "kernels"
            for the fast path in kernels of our own on a GPU (`Engine`).
        dtype: "float32", "bfloat16", or "auto": bfloat16 on a GPU, and on a CPU that multiplies it faster if the
            model is wide enough to gain.
        seed: of the noise. An episode's noise depends on it and on the number of calls since the reset.
        execution_horizon: rows meant to run before the next plan; the checkpoint's if 0.
        horizon: rows returned; all if 0.
        missing_views: answer without a view that was trained on, instead of an error.
        text_file: PaliGemma's tokenizer file, for checkpoints that use it.
        threads: of the CPU, for the whole process; 0 leaves them as they are.

    """

    engine: str = "fast"
    dtype: str = "auto"
    seed: int = 0
    execution_horizon: int = 0
    horizon: int = 0
    missing_views: bool = False
    text_file: str = ""
    threads: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            if type(getattr(self, f.name)) is not type(f.default):
                kind = type(f.default).__name__
                raise InferenceError(f"setting {f.name} is {getattr(self, f.name)!r}; it must be of type {kind}")
        for name, allowed in (("engine", ("fast", "eager", "kernels")), ("dtype", ("auto", "float32", "bfloat16"))):
            if getattr(self, name) not in allowed:
                raise InferenceError(f"setting {name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}")


def load_policy(checkpoint: str, device: str = "auto", **settings: Any) -> E0Policy:
    """A policy from a checkpoint's folder.

    Args:
        checkpoint: folder that `save_checkpoint` wrote.
        device: torch device, or "auto" for a GPU if there is one.
        settings: of `InferenceSettings` and `SamplerSettings`, by name.

    Raises:
        ValueError: unknown or wrong setting; no such checkpoint, or a damaged one (`CheckpointError`).

    """
    own = {f.name for f in fields(InferenceSettings)}
    sampler = {f.name for f in fields(SamplerSettings)}
    if unknown := sorted(set(settings) - own - sampler):
        raise InferenceError(f"unknown setting {unknown[0]!r}; allowed are {', '.join(sorted(own | sampler))}")
    chosen = InferenceSettings(**{k: v for k, v in settings.items() if k in own})
    found = read_checkpoint(Path(checkpoint))
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    model = load_model(found, target, served_dtype(chosen.dtype, target, found.model.width))
    drawn = SamplerSettings.of(found.model, **{k: v for k, v in settings.items() if k in sampler})
    policy = E0Policy(model, found, drawn, chosen)
    policy.warm_up()
    return policy


def served_dtype(name: str, device: torch.device, width: int) -> torch.dtype:
    """The dtype of `InferenceSettings.dtype` for a model of this width on a device."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    wide = width >= 512 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.bfloat16 if device.type == "cuda" or wide else torch.float32


class E0Policy:
    """A trained E0 model behind the `Policy` protocol. Made by `load_policy`."""

    def __init__(
        self, model: E0Model, checkpoint: Checkpoint, sampler: SamplerSettings, settings: InferenceSettings
    ) -> None:
        self._model, self._checkpoint, self._sampler, self._settings = model, checkpoint, sampler, settings
        text_file = Path(settings.text_file) if settings.text_file else None
        self._transform = PolicyTransform.from_json(checkpoint.transform, text_file)
        self._arm = load_embodiment(checkpoint.embodiment)
        self._device = model.action_in.weight.device
        self._engine = _engine(model, sampler, settings.engine)
        self._generator = torch.Generator(self._device)
        self._calls = 0
        self._noise: tuple[int, NoiseDraw] | None = None
        rows = model.config.prediction_horizon
        for name, value in (("execution_horizon", self.execution_horizon), ("horizon", settings.horizon or rows)):
            if not 1 <= value <= rows:
                raise InferenceError(f"setting {name} is {value}; this model predicts {rows} rows")
        if 0 < settings.horizon < settings.execution_horizon:
            raise InferenceError(
                f"setting horizon is {settings.horizon}, execution_horizon {settings.execution_horizon}: a plan would "
                "end before the next one is due"
            )
        _check_transform(self._transform, model)

    @property
    def embodiment(self) -> str:
        """Embodiment that its rows are meant for."""
        return self._checkpoint.embodiment

    @property
    def checkpoint(self) -> str:
        """The first digits of the SHA-256 of its weights."""
        return self._checkpoint.identifier

    @property
    def execution_horizon(self) -> int:
        """Rows meant to run before the next plan."""
        return self._settings.execution_horizon or self._checkpoint.execution_horizon

    def reset(self) -> None:
        """Begin an episode: the same noise follows after every reset."""
        self._calls, self._noise = 0, None
        self.prepare()

    def warm_up(self) -> None:
        """Plan from black images, without and with a plan in force, so that no episode pays for what is made once.

        Raises:
            InferenceError: the weights give numbers that are not finite.

        """
        black = np.zeros((self._transform.image_size, self._transform.image_size, 3), np.uint8)
        observation = Observation(0, dict.fromkeys(self._transform.views, black), self._arm.home, 1.0)
        first = self.infer(observation, None)
        self.infer(observation, Plan(first.rows, 0, first.period_ns, 0))
        self.reset()

    def prepare(self) -> None:
        """Draw and project the noise of the next call, off its critical path; nothing is left to do if it was done.

        The noise is the same whether this is called or not.
        """
        seed = self._settings.seed + self._calls
        if self._noise is not None and self._noise[0] == seed:
            return
        self._generator.manual_seed(seed)
        noise = diffusion.draw_noise(self._model.config, self._sampler, self._sampler.samples, self._generator)
        if self._engine is not None:
            self._engine.prepare(noise)
        self._noise = seed, noise

    def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput:
        """Plan from an observation.

        Raises:
            ValueError: the observation does not fit: another embodiment, a missing view, a wrong image, a number that
                is not finite, an instruction that is too long. The message names what was got and what is needed.

        """
        self._check(observation)
        proprioception = np.append(observation.joint_positions, observation.gripper_opening)
        inputs = self._transform.inputs(observation.views, proprioception, observation.instruction)
        in_force, fixed = self._in_force(observation.stamp_ns, plan)
        committed = min(fixed, self._model.config.committed_max)
        targets = self._targets(in_force, proprioception)
        batch = replace(stack([inputs], [targets]), committed=torch.tensor([committed]))
        batch = replace(batch, view_offset=self._offsets(observation))
        seed, sample = self._draw(batch, idle=plan is None)
        rows = self._rows(sample, proprioception)
        rows[:committed] = in_force[:committed]
        count = self._settings.horizon or len(rows)
        entropy = sample.entropy[0, :count].float().cpu().numpy()
        if not (np.isfinite(entropy).all() and np.isfinite(rows).all()):
            raise InferenceError(f"the network's answer is not finite; the weights of {self.checkpoint} are damaged")
        what = self._checkpoint.period_ns, self._checkpoint.representation
        return PolicyOutput(rows[:count], *what, uncertainty=entropy, seed=seed, rows_not_kept=fixed - committed)

    def _check(self, observation: Observation) -> None:
        arm, got = self._arm, observation.embodiment
        if got and got != arm.name:
            raise InferenceError(f"the observation is of {got!r}; this policy was trained on {arm.name!r}")
        if observation.joint_names and observation.joint_names != arm.joint_names:
            raise InferenceError(f"joints are {observation.joint_names}; this policy was trained on {arm.joint_names}")
        if observation.joint_positions.shape != (arm.joints,):
            raise InferenceError(f"joint positions have shape {observation.joint_positions.shape}; needed {arm.joints}")
        missing = [v for v in self._transform.views if v not in observation.views]
        if missing and not self._settings.missing_views:
            there = ", ".join(observation.views) or "none"
            raise InferenceError(
                f"view {missing[0]!r} is missing; got {there}, needed {', '.join(self._transform.views)}"
            )

    def _offsets(self, observation: Observation) -> torch.Tensor:
        """`(1, V, 3)` for the relative spherical embedding (eq. 9)."""
        known = observation.view_offsets
        offsets = np.array([[known.get(view, np.zeros(3)) for view in self._transform.views]], np.float32)
        if offsets.shape[2:] != (3,) or not np.isfinite(offsets).all():
            raise InferenceError(f"view offsets are {dict(known)}; three finite numbers per view are needed")
        return torch.from_numpy(offsets)

    def _in_force(self, stamp_ns: int, plan: Plan | None) -> tuple[FloatArray, int]:
        """Rows of the plan in force on the new plan's grid `(n, columns)`, n <= H, and how many are committed.

        The row of the observation's own time always is: where the arm is told to be by now, no answer changes. With it
        the network also knows an arm that was pushed off its path from one that is where it should be. A row that is a
        step is still to be taken then.
        """
        config = self._model.config
        if plan is None:
            return np.zeros((0, self._transform.columns)), 0
        times = stamp_ns + np.arange(config.prediction_horizon) * self._checkpoint.period_ns
        rows = resample(plan, times)
        steps = self._checkpoint.representation is Representation.EE_DELTA_STEP
        fixed_ns = plan.committed_until_ns if steps else max(plan.committed_until_ns, stamp_ns)
        return rows, min(int((times <= fixed_ns).sum()), len(rows))

    def _targets(self, rows: FloatArray, proprioception: FloatArray) -> Targets:
        """The plan in force as tokens; nothing is known of rows behind its end."""
        if len(rows):
            return self._transform.targets(rows, proprioception)
        shape = (self._model.config.prediction_horizon, self._model.config.action_dim)
        return Targets(np.zeros(shape, np.int64), np.zeros(shape, bool), 0)

    def _draw(self, batch: Batch, idle: bool) -> tuple[int, Sample]:
        """The seed and the chunk of this call; `idle`: nothing moves by a plan of ours, so there is time to record."""
        self.prepare()
        assert self._noise is not None
        (seed, noise), self._noise = self._noise, None
        self._calls += 1
        if self._engine is None:
            return seed, self._model.sample(on_device(batch, self._device), self._sampler, noise)
        if idle:
            self._engine.record(batch)
        return seed, self._engine.sample(batch)

    def _rows(self, sample: Sample, proprioception: FloatArray) -> FloatArray:
        return self._transform.physical(sample.values(self._transform.tokenizer)[0], proprioception)


def _engine(model: E0Model, sampler: SamplerSettings, name: str) -> Engine | None:
    """The engine of that name; None is the eager reference."""
    if name == "kernels":
        return Engine(model, sampler, kernels=True)
    return Engine(model, sampler) if name == "fast" and supports(model.config) else None


def resample(plan: Plan, times_ns: NDArray[np.int64]) -> FloatArray:
    """Rows of a plan at other times, as far as the plan reaches: `(n, columns)`, n <= len(times).

    Joints are linear between two rows; the last column, the gripper, holds.
    """
    position = (times_ns - plan.t0_ns) / plan.period_ns
    inside = (position >= 0) & (position <= len(plan.rows) - 1)
    position = position[: len(position) if inside.all() else int(inside.argmin())]
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, len(plan.rows) - 1)
    share = (position - low)[:, None]
    rows = (1.0 - share) * plan.rows[low] + share * plan.rows[high]
    rows[:, -1] = plan.rows[low, -1]
    return rows


def _check_transform(transform: PolicyTransform, model: E0Model) -> None:
    """Statistics and sizes must be of one making."""
    config = model.config
    pairs: Mapping[str, tuple[object, object]] = {
        "views": (transform.views, config.views),
        "image_size": (transform.image_size, config.image_size),
        "action_dim": (transform.action_dim, config.action_dim),
        "prediction_horizon": (transform.prediction_horizon, config.prediction_horizon),
        "bins": (transform.tokenizer.bins, config.bins),
        "proprio_dim": (transform.proprio_dim, config.proprio_dim),
    }
    for name, (got, want) in pairs.items():
        if got != want:
            raise ModelConfigError(f"{name} of the transform is {got!r}; the model's is {want!r}")
