"""Rollouts of a policy or the scripted expert in this process.

config = completed(EvalConfig(checkpoint="checkpoints/nano", settings="{steps: 4}"))
with RolloutRunner(config) as runner:
    rollout = runner.run(Job(POLICY, "PickCube-v1", 1000))
rollout.outcome   # success, failure, or error: something broke, which says nothing of the policy

`sim.eval_workers.run_jobs` does the same in several processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from e0_policy.embodiment import load_embodiment
from e0_ros.config import ConfigError, check, closest, setting
from e0_ros.policies import load_checkpoint, read_card
from e0_ros.version import code_version
from sim.adapter import SimAdapter
from sim.direct import DirectEpisode, DirectLoop, Moment
from sim.eval_rollouts import BLANK, ERROR, FAILURE, OTHER, POLICY, SUCCESS, Job, Rollout
from sim.simulators import SIMULATORS, instructions, make_adapter
from sim.sources import Disguise, ExpertSource, PolicySource
from sim.statistics import percentile, rms_jerk

MODES = ("lockstep", "realtime", "direct", "raw")
DEFAULT_VIEWS, DEFAULT_PX = ("base", "wrist"), 224
SETTINGS = {"threads": 1}
"""Settings of inference that an evaluation has of its own: one thread, so that every mode computes the same bits."""


@dataclass(frozen=True)
class EvalConfig:
    """What is evaluated, and how."""

    simulator: str = setting("maniskill", "where the arm lives", choices=SIMULATORS)
    mode: str = setting(
        "lockstep", "over the ROS graph (lockstep, realtime), or without it (direct, raw)", choices=MODES
    )
    checkpoint: str = setting("", "folder of the checkpoint; empty: the scripted expert")
    device: str = setting("auto", "torch device, or auto")
    settings: str = setting("{}", "settings of inference as a YAML mapping")
    views: tuple[str, ...] = setting((), "camera views; empty: the checkpoint's own")
    size: int = setting(0, "side of the views; 0: the checkpoint's own", unit="px", low=0, high=2048)
    max_steps: int = setting(0, "control steps of 50 ms per rollout; 0: the task's own limit", low=0, high=100_000)

    def __post_init__(self) -> None:
        check(self)
        inference_settings(self.settings)


def inference_settings(text: str) -> dict[str, Any]:
    """Settings of inference from YAML, with those of every evaluation.

    Raises:
        ConfigError: the text is no mapping.

    """
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError:
        given = None
    if not isinstance(given, dict):
        raise ConfigError(f"settings is {text!r}; a YAML mapping is needed")
    return {**SETTINGS, **given}


def completed(config: EvalConfig) -> EvalConfig:
    """The configuration with the checkpoint's own views and size where none were given.

    Raises:
        ConfigError: there is no such checkpoint.

    """
    views, px = DEFAULT_VIEWS, DEFAULT_PX
    if config.checkpoint:
        card = read_card(Path(config.checkpoint))
        views, px = card.views, card.image_px
    return replace(config, views=config.views or views, size=config.size or px)


def identity(config: EvalConfig) -> dict[str, Any]:
    """Everything that outcomes depend on, for a completed configuration: the weights count, not where they lie."""
    known = {**asdict(config), "views": list(config.views), "settings": inference_settings(config.settings)}
    known["checkpoint"] = read_card(Path(config.checkpoint)).identifier if config.checkpoint else ""
    return {**known, "code_version": code_version()}


def other_instruction(simulator: str, task: str) -> str:
    """Instruction of the first other task; empty if there is no other.

    Raises:
        ConfigError: unknown task.

    """
    known = instructions(simulator)
    if task not in known:
        raise ConfigError(f"{simulator} has no task {task!r}{closest(task, known)}")
    return next((text for name, text in known.items() if name != task), "")


class RolloutRunner:
    """Runs rollouts in the direct loop, one after the other. No rollout depends on the ones before.

    Args:
        config: a completed one, of mode direct.

    Raises:
        ValueError: the checkpoint or its settings are wrong.

    """

    def __init__(self, config: EvalConfig) -> None:
        self._config = config
        self._policy = None
        if config.checkpoint:
            self._policy = load_checkpoint(config.checkpoint, config.device, inference_settings(config.settings))
        self._adapter: SimAdapter | None = None
        self._loop: DirectLoop | None = None
        self._source: ExpertSource | PolicySource | None = None

    def __enter__(self) -> RolloutRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def run(self, job: Job, onlooker: Callable[[Moment], None] | None = None) -> Rollout:
        """Run one rollout; whatever breaks is its error, never a failure of the policy."""
        try:
            return self._run(job, onlooker)
        except Exception as error:
            self.close()
            return Rollout(job.condition, job.task, job.seed, ERROR, error=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Free simulator and planner; the next run makes new ones."""
        if self._source is not None:
            self._source.close()
        if self._adapter is not None:
            self._adapter.close()
        self._adapter = self._loop = self._source = None

    def _run(self, job: Job, onlooker: Callable[[Moment], None] | None) -> Rollout:
        loop, source = self._ready(job.task)
        if isinstance(source, PolicySource):
            source.disguise = disguise(self._config.simulator, job)
        source.reset(job.task, job.seed)
        episode = loop.run(job.task, job.seed, source, self._config.max_steps, onlooker)
        period_s = loop.rig.adapter.control_period_ns / 1e9
        rollout = _rollout(job, episode, period_s)
        if not isinstance(source, PolicySource):
            return rollout
        latencies = source.latencies_ms
        rollout = replace(
            rollout,
            plans=len(latencies),
            latency_ms_p50=percentile(latencies, 0.5),
            latency_ms_p99=percentile(latencies, 0.99),
        )
        return replace(rollout, outcome=ERROR, error=f"the policy: {source.fault}") if source.fault else rollout

    def _ready(self, task: str) -> tuple[DirectLoop, ExpertSource | PolicySource]:
        if self._loop is None or self._source is None:
            config = self._config
            arm = self._policy.embodiment if self._policy else "panda"
            self._adapter = make_adapter(config.simulator, config.views, (config.size, config.size), arm)
            self._loop = DirectLoop(self._adapter, task)
            model = load_embodiment(arm)
            expert = self._policy is None
            self._source = ExpertSource(config.simulator, model) if expert else PolicySource(self._policy, model)
        return self._loop, self._source


def disguise(simulator: str, job: Job) -> Disguise:
    """What a job's condition takes away from the policy."""
    other = other_instruction(simulator, job.task) if job.condition == OTHER else ""
    return Disguise(blank=job.condition == BLANK, instruction=other)


def _rollout(job: Job, episode: DirectEpisode, period_s: float) -> Rollout:
    return Rollout(
        job.condition,
        job.task,
        job.seed,
        SUCCESS if episode.success else FAILURE,
        steps=episode.steps,
        max_steps=episode.max_steps,
        time_to_success_s=episode.steps * period_s if episode.success else math.nan,
        jerk_rad_s3=rms_jerk(episode.references, period_s),
        stale=episode.stale,
        refused=episode.refused,
        holds=len(episode.holds),
        violations=episode.violations,
        wall_s=episode.wall_s,
        digest=episode.digest,
    )


__all__ = ["POLICY", "EvalConfig", "Job", "Rollout", "RolloutRunner", "completed", "identity"]
