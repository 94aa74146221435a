"""Runs episodes over the ROS graph: the services of one episode in order, and what was seen meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from e0_msgs.msg import ActionChunk, ExecutorState, Observation, SimState
from e0_policy.types import ImageArray
from e0_ros import interfaces
from e0_ros.conversions import pose_values, rgb8_from_msg, to_ns
from e0_ros.core.policy_session import is_error
from e0_ros.interfaces import Service, Topic, message_class
from e0_ros.polled import Polled
from sim.demonstration import PERIOD_NS
from sim.pacing import SLACK_NS
from sim.statistics import percentile, rms_jerk
from sim.trace import Trace

VERDICT_S = 10.0
POLL_S = 0.02
OTHER_CLOCK_S = 60.0
"""Stamps that are further from the publisher's clock are not its own: lock-step's."""
EVALUATOR = "evaluator"
Usage = Callable[[], Mapping[str, float]]
Hear = Callable[[Any, Mapping[str, Any]], None]
"""Called with a message and rclpy's message info."""
EPISODE_SERVICES = (
    interfaces.DISARM,
    interfaces.RESET_SIM,
    interfaces.SET_INSTRUCTION,
    interfaces.ARM,
    interfaces.START_EPISODE,
    interfaces.END_EPISODE,
)
"""Their clients are made before the graph is up: a server drops its answer to a client that it has not found yet."""


class EvaluationError(RuntimeError):
    """The graph did not do what an episode needs; the message names the node or service and its reason."""


@dataclass
class Episode:
    """What one episode came to. Times in seconds unless named otherwise; NaN where nothing was measured.

    `wall_s` runs from publishing to publishing of the very states that `sim_s` runs between, by the publisher's clock;
    `late_ms` is how long after its stamp each of them was published, in real time (in lock-step there are none).
    `violations` counts what the bridge's judge has found since its start (-1: it does not judge, or said nothing).
    `fault` is the first exception that the policy told of; `first` holds the pictures of the first observation.
    `cores` says how many processor cores each process of the graph, and this one, kept busy on average.
    `digest` is a hash of every pose of the scene and every commanded reference, step by step: in lock-step the same
    seed gives the same digest.
    """

    index: int
    task: str
    seed: int
    success: bool = False
    error: str = ""
    steps: int = 0
    max_steps: int = 0
    sim_s: float = 0.0
    wall_s: float = 0.0
    overrun_s: float = 0.0
    late_ms: list[float] = field(default_factory=list)
    cores: Mapping[str, float] = field(default_factory=dict)
    observation_age_ms: list[float] = field(default_factory=list)
    chunk_latency_ms: list[float] = field(default_factory=list)
    inference_ms: list[float] = field(default_factory=list)
    fault: str = ""
    jerk_rad_s3: float = math.nan
    first: Mapping[str, ImageArray] = field(default_factory=dict, repr=False)
    stale: int = 0
    commands: int = 0
    refused: int = 0
    holds: list[str] = field(default_factory=list)
    name: str = ""
    bag: str = ""
    lost: int = 0  # -1: not known
    bytes: int = 0
    digest: str = ""
    violations: int = 0

    @property
    def due_s(self) -> float:
        """The wall time in which the episode was to be simulated.

        In real time a state that comes late is no slower simulation: the bridge is paced by the wall clock, makes up
        what it is behind by at most `SLACK_NS`, and skips the rest, which `overrun_s` counts. A reset begins on time
        again, so that publishing to publishing would count as lost how late each episode's last state is. What lateness
        changes by within the slack is therefore left out; what it grows by beyond (a bridge that falls behind and does
        not say so) is not.
        """
        if not self.late_ms:
            return self.wall_s
        slack_s, grown_s = SLACK_NS / 1e9, self.wall_s - self.sim_s
        return self.sim_s + max(grown_s - slack_s, 0.0) + min(grown_s + slack_s, 0.0)

    @property
    def real_time_factor(self) -> float:
        """Time that was really simulated over wall time: what the bridge had to skip does not count."""
        return real_time_factor([self])

    @property
    def command_rate_hz(self) -> float:
        """Commands per second of simulated time."""
        return self.commands / self.sim_s if self.sim_s else math.nan

    def line(self) -> str:
        """The episode in one line."""
        outcome = "ERROR  " if self.error else ("success" if self.success else "failure")
        text = (
            f"seed {self.seed:<5} {outcome} {self.steps:3d}/{self.max_steps} steps"
            f"  obs age {percentile(self.observation_age_ms, 0.5):5.1f} ms"
            f"  rtf {self.real_time_factor:4.2f}  lost {self.lost if self.lost >= 0 else 'unknown'}"
        )
        return text + (f"  {self.error}" if self.error else "") + (f"  hold: {self.holds[-1]}" if self.holds else "")


def real_time_factor(episodes: Sequence[Episode]) -> float:
    """Of all episodes together: 1 where nothing was skipped in real time, and what lock-step came to."""
    due_s = sum(e.due_s for e in episodes)
    return sum(e.sim_s - e.overrun_s for e in episodes) / due_s if due_s else math.nan


class Evaluator(Node):  # type: ignore[misc]
    """A client of the whole graph. Every call waits for its reply, so no step depends on message order.

    Args:
        source: "scripted" (the experts plan each episode) or "policy".
        timeout_s: steady-clock bound of each wait.
        health: called while waiting; raises `EvaluationError` if the graph is gone.
        usage: processor time of each process of the graph so far [s].
    """

    def __init__(
        self, source: str, timeout_s: float, health: Callable[[], None], usage: Usage, context: Context
    ) -> None:
        super().__init__(EVALUATOR, context=context)
        self._source, self._timeout_s, self._health, self._usage = source, timeout_s, health, usage
        self._ros = SingleThreadedExecutor(context=context)
        self._ros.add_node(self)
        reset = interfaces.RESET_EXPERT if source == "scripted" else interfaces.RESET_POLICY
        self._needed = (*EPISODE_SERVICES, reset)
        self.sim: SimState | None = None
        self._told_s = 0.0
        self.executor_state: ExecutorState | None = None
        self._episode: Episode | None = None
        self._trace = Trace()
        self._inference_ms: dict[int, float] = {}
        self._polled, self._heard = Polled(), list[tuple[Any, Hear]]()
        self._listen(interfaces.SIM_STATE, self._on_sim)
        self._listen(interfaces.EXECUTOR_STATE, self._on_executor)
        self._listen(interfaces.OBSERVATION, self._on_observation)
        self._listen(interfaces.ACTION_CHUNK, self._on_chunk)
        self._listen(interfaces.DIAGNOSTICS, self._on_diagnostics)
        kinds = {s.name: message_class(s.type) for s in self._needed}
        # made after the subscriptions: whoever answers knows of these too (see `e0_ros.introductions`)
        self._callers = {name: self.create_client(kind, name) for name, kind in kinds.items()}
        self._verdict: DiagnosticStatus | None = None

    def close(self) -> None:
        """Leave the graph."""
        self._ros.remove_node(self)
        self.destroy_node()
        self.context.try_shutdown()

    def run(
        self,
        index: int,
        task: str,
        seed: int,
        max_steps: int,
        on_step: Callable[[Episode], None] | None = None,
        name: str = "",
    ) -> Episode:
        """Run one episode; a fault of the graph is its `error`, never a failure of the policy.

        `name` becomes the episode's identifier and its bag's name; empty: the recorder makes one. What was
        recorded until an error is kept, unlabelled: its end was not seen.
        """
        episode = Episode(index, task, seed, name=name)
        try:
            self._prepare(episode, max_steps)
            self._watch(episode, on_step)
        except EvaluationError as error:
            episode.error = str(error)
        finally:
            self._episode = None
        self._finish(episode)
        episode.violations = -1 if episode.error else self._judgement()
        episode.digest = self._trace.digest()  # only now: each node's last words come when they come
        episode.jerk_rad_s3 = rms_jerk(*self._trace.motion(), PERIOD_NS)
        return episode

    def wait_ready(self, timeout_s: float = 300.0) -> None:
        """Wait until every service of an episode is there; a cold simulator reads gigabytes at its first start.

        Raises:
            EvaluationError: names the services that did not come up within the timeout, or what died.
        """
        deadline = time.monotonic() + timeout_s
        while missing := [s for s in self._needed if not self._callers[s.name].service_is_ready()]:
            self._health()
            if time.monotonic() > deadline:
                names = ", ".join(f"{s.owner} ({s.name})" for s in missing)
                raise EvaluationError(f"not up within {timeout_s:.0f} s: {names}; look at their logs")
            self._wait()

    def _prepare(self, episode: Episode, max_steps: int) -> None:
        self._call(interfaces.DISARM)
        request = {"task": episode.task, "seed": episode.seed, "max_steps": max_steps}
        reset = self._call(interfaces.RESET_SIM, **request)
        if self._source == "scripted":
            self._call(interfaces.RESET_EXPERT, **request)
        else:
            self._call(interfaces.RESET_POLICY)
        self._call(interfaces.SET_INSTRUCTION, instruction=reset.instruction)
        self._arm(reset.stamp)
        self.sim = None
        self._trace, self._inference_ms = Trace(), {}
        self._episode = episode
        started = self._call(interfaces.START_EPISODE, episode_id=episode.name, task=episode.task, seed=episode.seed)
        episode.name, episode.bag = started.episode_id, started.bag

    def _arm(self, not_before: Time) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            reply = self._request(interfaces.ARM, not_before=not_before)
            if reply.success:
                return
            if time.monotonic() > deadline:
                raise EvaluationError(f"{interfaces.ARM.owner} did not arm: {reply.message}")
            self._wait()

    def _watch(self, episode: Episode, on_step: Callable[[Episode], None] | None) -> None:
        last_step, begin = -1, time.monotonic()
        alive, used_s = begin, self._used_s()
        while True:
            self._wait()
            state = self.sim
            if state is not None and state.step != last_step:
                last_step, alive = state.step, time.monotonic()
                episode.steps, episode.max_steps = state.step, state.max_steps
                episode.success = state.success_once
                if on_step is not None:
                    on_step(episode)
            if state is not None and state.done:
                ended_ns, elapsed_s = to_ns(state.header.stamp), time.monotonic() - begin
                episode.cores = {name: (s - used_s[name]) / elapsed_s for name, s in self._used_s().items()}
                episode.inference_ms = [ms for t, ms in self._inference_ms.items() if t < ended_ns]
                if not state.success_once and state.step < state.max_steps:
                    raise EvaluationError(f"the bridge gave the episode up at step {state.step}; its log says why")
                return
            self._health()
            if time.monotonic() - alive > self._timeout_s:
                raise EvaluationError(f"bridge ({interfaces.SIM_STATE.name}) is silent for {self._timeout_s:.0f} s")

    def _used_s(self) -> dict[str, float]:
        return {**self._usage(), EVALUATOR: time.process_time()}

    def _finish(self, episode: Episode) -> None:
        outcome = "unlabelled" if episode.error else ("success" if episode.success else "failure")
        try:
            reply = self._call(interfaces.END_EPISODE, outcome=outcome, note=episode.error)
            episode.lost = -1 if reply.unnumbered else reply.lost
            episode.bytes, episode.bag = reply.bytes, reply.bag
            self._call(interfaces.DISARM)
        except EvaluationError as error:
            episode.error = episode.error or str(error)

    def _judgement(self) -> int:
        """Violations that the judge has counted when the episode was over; -1 without a judge or without word of it."""
        wanted = self.sim.reset_id if self.sim is not None else 0
        deadline = time.monotonic() + VERDICT_S
        while self._verdict is None or _number(self._verdict, "ended_reset") < wanted:
            if time.monotonic() > deadline:
                return -1
            self._wait()
        return _number(self._verdict, "violations") if _number(self._verdict, "judged") else -1

    def _call(self, service: Service, **fields: Any) -> Any:
        reply = self._request(service, **fields)
        if not reply.success:
            raise EvaluationError(f"{service.owner} refused {service.name}: {reply.message}")
        return reply

    def _request(self, service: Service, **fields: Any) -> Any:
        self._health()  # nothing is asked of a graph that is gone: who ends it says how its take ended
        client = self._callers[service.name]
        future = client.call_async(message_class(service.type).Request(**fields))
        deadline = time.monotonic() + self._timeout_s
        while not future.done():
            self._health()
            if time.monotonic() > deadline:
                client.remove_pending_request(future)
                raise EvaluationError(f"{service.owner} did not answer {service.name} within {self._timeout_s:.0f} s")
            self._ros.spin_until_future_complete(future, 0.2)
            self._hear()
        return future.result()

    def _listen(self, topic: Topic, callback: Hear) -> None:
        kind, profile = message_class(topic.type), topic.qos.profile()
        subscription = self.create_subscription(kind, topic.name, lambda _: None, profile, callback_group=self._polled)
        self._heard.append((subscription, callback))

    def _wait(self) -> None:
        """Let a moment pass and take what has come: to wake for each message costs four times as much."""
        self._ros.spin_once(POLL_S)
        self._hear()

    def _hear(self) -> None:
        for subscription, callback in self._heard:
            with subscription.handle:
                while taken := subscription.handle.take_message(subscription.msg_type, False):
                    callback(*taken)

    def _on_sim(self, msg: SimState, info: Mapping[str, Any]) -> None:
        told_s, episode, before = info["source_timestamp"] / 1e9, self._episode, self.sim
        if episode is not None and before is not None and before.reset_id == msg.reset_id and msg.step > before.step:
            episode.sim_s += (to_ns(msg.header.stamp) - to_ns(before.header.stamp)) / 1e9
            episode.overrun_s += (msg.overrun_ns - before.overrun_ns) / 1e9
            episode.wall_s += told_s - self._told_s
            late_s = told_s - to_ns(msg.header.stamp) / 1e9
            if abs(late_s) < OTHER_CLOCK_S:
                episode.late_ms.append(1e3 * late_s)
        self.sim, self._told_s = msg, told_s
        if self._episode is not None:
            self._trace.scene(to_ns(msg.header.stamp), np.array([pose_values(pose) for pose in msg.poses]))

    def _on_executor(self, msg: ExecutorState, _: Mapping[str, Any]) -> None:
        before, self.executor_state, episode = self.executor_state, msg, self._episode
        self._trace.reference(to_ns(msg.header.stamp), np.array(msg.positions))
        if episode is None or before is None:
            return
        episode.commands += max(0, msg.commands - before.commands)
        episode.refused += max(0, msg.chunks_refused - before.chunks_refused)
        if msg.mode == ExecutorState.HOLD and before.mode != ExecutorState.HOLD:
            episode.holds.append(msg.reason)

    def _on_observation(self, msg: Observation, _: Mapping[str, Any]) -> None:
        if self._episode is None:
            return
        if msg.status == Observation.STATUS_OK:
            self._episode.observation_age_ms.append(msg.age_ns / 1e6)
            if not self._episode.first:
                views = zip(msg.view_names, msg.views, strict=True)
                self._episode.first = {name: rgb8_from_msg(image) for name, image in views}
        else:
            self._episode.stale += 1

    def _on_diagnostics(self, msg: DiagnosticArray, _: Mapping[str, Any]) -> None:
        self._verdict = next((status for status in msg.status if status.name == "bridge"), self._verdict)

    def _on_chunk(self, msg: ActionChunk, _: Mapping[str, Any]) -> None:
        if self._episode is None:
            return
        if msg.status == ActionChunk.STATUS_OK:
            latency_ns = to_ns(msg.header.stamp) - to_ns(msg.in_reply_to)
            self._episode.chunk_latency_ms.append(latency_ns / 1e6)
            self._inference_ms[to_ns(msg.in_reply_to)] = msg.latency_ns / 1e6
        elif is_error(msg.reason):
            self._episode.fault = self._episode.fault or msg.reason


def _number(status: Any, key: str) -> int:
    return next((int(value.value) for value in status.values if value.key == key), -1)


def violations(episodes: Sequence[Episode]) -> float:
    """Violations of a whole run; NaN if the judge did not speak of every episode that ran."""
    judged = [episode.violations for episode in episodes if not episode.error]
    return math.nan if not judged or min(judged) < 0 else float(max(judged))


def start(
    source: str, health: Callable[[], None] = lambda: None, timeout_s: float = 60.0, usage: Usage = dict
) -> Evaluator:
    """Join the graph, in a context of its own, so that the caller's rclpy is left alone."""
    context = Context()
    rclpy.init(context=context)
    return Evaluator(source, timeout_s, health, usage, context)
