"""Rollouts of a policy or of the scripted expert in this process.

config = completed(EvalConfig(mode="direct", checkpoint="checkpoints/nano", settings="{steps: 4}"))
with RolloutRunner(config) as runner:
    rollout = runner.run(Job(POLICY, "PickCube-v1", 1000))
rollout.outcome   # success, failure, or error: something broke, which says nothing of the policy

`sim.eval_run.evaluate` runs many, in several processes or over the ROS graph, and `sim.eval_summary` sums them up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import yaml

from e0_policy.embodiment import load_embodiment
from e0_policy.foreign import expanded
from e0_policy.policy import Policy
from e0_policy.types import ImageArray
from e0_ros.config import ConfigError, check, closest, setting
from e0_ros.core.policy_config import DOUBT_NATS
from e0_ros.graph import DEFAULT_PX, DEFAULT_VIEWS
from e0_ros.graph import SIMULATORS as GRAPH_SIMULATORS
from e0_ros.policies import Card, check_rows, load_checkpoint, read_card
from e0_ros.version import code_version
from sim.adapter import SimAdapter
from sim.camera_shift import REPORTED, CameraShift
from sim.direct import DirectEpisode, DirectLoop, Moment
from sim.eval_rollouts import BLANK, ERROR, FAILURE, OTHER, SUCCESS, Job, Rollout
from sim.raw import RawLoop
from sim.scripted import CONTROLS
from sim.simulators import SIMULATORS, STEPPED, instructions, make_adapter, make_row_adapter
from sim.sources import Disguise, ExpertSource, PolicySource
from sim.statistics import percentile

if TYPE_CHECKING:
    from sim.evaluator import Episode

GRAPH_MODES, LOCAL_MODES = ("lockstep", "realtime"), ("direct", "raw")
SETTINGS = {"threads": 1}
"""Settings of inference that an evaluation has of its own: one thread, so that every mode computes the same bits."""


@dataclass(frozen=True)
class EvalConfig:
    """What is evaluated, and how."""

    simulator: str = setting("maniskill", "where the arm lives", choices=SIMULATORS)
    mode: str = setting("lockstep", "over the ROS graph (lockstep, realtime) or in one process (direct, raw)",
                        choices=GRAPH_MODES + LOCAL_MODES)  # fmt: skip
    checkpoint: str = setting("", "the checkpoint: a folder, or an openpi server's address; empty: scripted expert")
    device: str = setting("auto", "torch device, or auto")
    settings: str = setting("{}", "settings of inference as a YAML mapping")
    doubt_nats: float = setting(
        DOUBT_NATS, "the next plan is due at the first row of more entropy", unit="nats", low=0.0, high=DOUBT_NATS
    )
    views: tuple[str, ...] = setting((), "camera views; empty: the checkpoint's own")
    size: int = setting(0, "side of the views; 0: the checkpoint's own", unit="px", low=0, high=2048)
    max_steps: int = setting(0, "control steps of 50 ms per rollout; 0: the task's own limit", low=0, high=100_000)
    camera_shift_deg: float = setting(0.0, "fixed cameras moved on a sphere", unit="deg", low=0.0, high=60.0)
    camera_poses: str = setting("nominal", "where moved cameras say that they stand", choices=REPORTED)
    sim_python: str = setting("", "over the graph: interpreter of the simulator; empty: this one")

    control: str = setting("joint_position", "what rows of the expert's chunks are", choices=CONTROLS)

    def __post_init__(self) -> None:
        check(self)
        if self.control != "joint_position" and (self.checkpoint or self.mode == "raw"):
            raise ConfigError(f"control {self.control} is the expert's, through the executor; a checkpoint has its own")
        if self.doubt_nats < DOUBT_NATS and not self.checkpoint:
            raise ConfigError("doubt_nats is a policy's; the scripted expert has no doubt")
        if self.camera_shift_deg and self.simulator != "maniskill":
            raise ConfigError(f"{self.simulator}'s cameras cannot be moved; maniskill's can")
        inference_settings(self.settings)
        if self.mode == "raw" and self.simulator == "fr3_plant":
            others = ", ".join(name for name in SIMULATORS if name != self.simulator)
            raise ConfigError(f"{self.simulator} has no protocol of its own; --raw is for {others}")
        if self.mode == "realtime" and self.simulator in STEPPED:
            raise ConfigError(f"{self.simulator} can only be stepped; --mode lockstep, --direct or --raw")
        if self.sim_python and self.mode in LOCAL_MODES:
            raise ConfigError(f"--{self.mode} runs in one process: {self.sim_python} -m e0_ros.cli eval ... instead")

    @property
    def shift(self) -> CameraShift:
        """How the cameras are moved."""
        return CameraShift(self.camera_shift_deg, self.camera_poses)


def inference_settings(text: str) -> dict[str, Any]:
    """Settings of inference from YAML, over those of every evaluation; `mapping` is replaced by that file's content.

    Raises:
        ConfigError: the text or the file is no mapping.

    """
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError:
        given = None
    if not isinstance(given, dict):
        raise ConfigError(f"the settings of inference are {text!r}; a YAML mapping is needed")
    try:
        return {**SETTINGS, **expanded(given)}
    except ValueError as error:
        raise ConfigError(str(error)) from None


def card_of(config: EvalConfig) -> Card | None:
    """What the checkpoint expects; None for the expert.

    Raises:
        ConfigError: there is no such checkpoint.

    """
    return read_card(config.checkpoint, inference_settings(config.settings)) if config.checkpoint else None


def policy_of(config: EvalConfig) -> Policy:
    """The policy of a configuration with a checkpoint; one of others plans for the simulator's arm.

    Raises:
        ValueError: the checkpoint or its settings are wrong.

    """
    settings, arm = inference_settings(config.settings), GRAPH_SIMULATORS[config.simulator].embodiment
    return load_checkpoint(config.checkpoint, config.device, settings, arm)


def completed(config: EvalConfig) -> EvalConfig:
    """The configuration with the checkpoint's own views and size where none were given.

    Raises:
        ConfigError: there is no such checkpoint, or the simulator does not take its rows.

    """
    if card := card_of(config):
        check_rows(card, GRAPH_SIMULATORS[config.simulator].step_names, f"simulator {config.simulator}")
    views, px = (card.views, card.image_px) if card else (DEFAULT_VIEWS, DEFAULT_PX)
    return replace(config, views=config.views or views, size=config.size or px)


def identity(config: EvalConfig) -> dict[str, Any]:
    """Everything that outcomes depend on, for a completed configuration: the weights count, not where they lie."""
    card = card_of(config)
    known = {**asdict(config), "views": list(config.views), "settings": inference_settings(config.settings)}
    known["checkpoint"] = card.name if card else ""
    known.pop("sim_python")  # where a package lies changes nothing
    return {**known, "code_version": code_version()}


def check_tasks(simulator: str, tasks: tuple[str, ...]) -> None:
    """Refuse an unknown task before anything starts.

    Raises:
        ConfigError: the closest one is named.

    """
    known = instructions(simulator)
    for task in tasks:
        if task not in known:
            raise ConfigError(f"{simulator} has no task {task!r}{closest(task, known)}")


def other_instruction(simulator: str, task: str) -> str:
    """The first instruction that is not this task's, for two tasks may be told the same; empty if there is none."""
    known = instructions(simulator)
    return next((text for text in known.values() if text != known[task]), "")


class RolloutRunner:
    """Runs rollouts one after the other; none depends on the ones before. The simulator starts with the first.

    Args:
        config: a completed one, of mode direct or raw.
        on_first: gets the pictures of each rollout's first observation.

    Raises:
        ValueError: the checkpoint or its settings are wrong.

    """

    def __init__(
        self, config: EvalConfig, on_first: Callable[[Job, Mapping[str, ImageArray]], None] | None = None
    ) -> None:
        self._config, self._on_first = config, on_first
        self._policy = policy_of(config) if config.checkpoint else None
        self._loop: DirectLoop | RawLoop | None = None
        self._source: ExpertSource | PolicySource | None = None

    def __enter__(self) -> RolloutRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
        if end := getattr(self._policy, "close", None):
            end()

    def run(self, job: Job, onlooker: Callable[[Moment], None] | None = None) -> Rollout:
        """Run one rollout; whatever breaks is its error, never a failure of the policy."""
        try:
            return self._run(job, onlooker)
        except Exception as error:
            self.close()
            return error_of(job, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Free simulator and planner; the next run makes new ones."""
        if self._source is not None:
            self._source.close()
        if self._loop is not None:
            self._loop.adapter.close()
        self._loop = self._source = None

    def _run(self, job: Job, onlooker: Callable[[Moment], None] | None) -> Rollout:
        self._loop = loop = self._loop or self._make_loop(job.task)
        self._source = source = self._source or self._make_source(loop.adapter)
        if isinstance(source, PolicySource):
            source.disguise = disguise(self._config.simulator, job)
        source.reset(job.task, job.seed)
        episode = loop.run(job.task, job.seed, source, self._config.max_steps, onlooker)
        if self._on_first:
            self._on_first(job, episode.first)
        told = {"violations": episode.violations, "wall_s": episode.wall_s}
        rollout = ended(job, episode, loop.adapter.control_period_ns, **told)
        return _with_policy(rollout, source) if isinstance(source, PolicySource) else rollout

    def _make_loop(self, task: str) -> DirectLoop | RawLoop:
        config, size_px = self._config, (self._config.size, self._config.size)
        if config.mode == "raw":
            return RawLoop(make_row_adapter(config.simulator, config.views, size_px, config.shift))
        if config.simulator in STEPPED:
            return DirectLoop(make_row_adapter(config.simulator, config.views, size_px), task)
        adapter = make_adapter(config.simulator, config.views, size_px, self._arm(), shift=config.shift)
        return DirectLoop(adapter, task)

    def _make_source(self, adapter: SimAdapter) -> ExpertSource | PolicySource:
        arm = load_embodiment(self._arm())
        if self._policy:
            return PolicySource(self._policy, arm, self._config.doubt_nats)
        return ExpertSource(self._config.simulator, arm, lambda: adapter.privileged().poses, self._config.control)

    def _arm(self) -> str:
        """The policy's arm, or for the expert the one that the graph of this simulator has."""
        return self._policy.embodiment if self._policy else GRAPH_SIMULATORS[self._config.simulator].embodiment


def disguise(simulator: str, job: Job) -> Disguise:
    """What a job's condition changes of what the policy sees."""
    other = other_instruction(simulator, job.task) if job.condition == OTHER else ""
    return Disguise(blank=job.condition == BLANK, instruction=other)


def error_of(job: Job, text: str) -> Rollout:
    """A rollout that something broke."""
    return Rollout(job.condition, job.task, job.seed, ERROR, error=" ".join(text.split()))


def ended(job: Job, episode: DirectEpisode | Episode, period_ns: int, **more: Any) -> Rollout:
    """A rollout that came to its end, with steps of `period_ns`; `more` is told otherwise by each way to run one."""
    return Rollout(
        job.condition,
        job.task,
        job.seed,
        SUCCESS if episode.success else FAILURE,
        steps=episode.steps,
        max_steps=episode.max_steps,
        time_to_success_s=round(episode.steps * period_ns / 1e9, 6) if episode.success else math.nan,
        jerk_rad_s3=episode.jerk_rad_s3,
        stale=episode.stale,
        refused=episode.refused,
        holds=len(episode.holds),
        digest=episode.digest,
        **more,
    )


def _with_policy(rollout: Rollout, source: PolicySource) -> Rollout:
    """The rollout with what the policy's side tells."""
    if source.fault:
        return error_of(rollout.job, f"the policy: {source.fault}")
    return replace(rollout, **inference_figures(source.latencies_ms))


def inference_figures(latencies_ms: list[float]) -> dict[str, Any]:
    """What a rollout tells of the policy's plans, by the time that each took."""
    p50, p99 = percentile(latencies_ms, 0.5), percentile(latencies_ms, 0.99)
    return {"plans": len(latencies_ms), "latency_ms_p50": p50, "latency_ms_p99": p99}
