"""policy: observations in, action chunks out. Inference runs on one worker thread behind a latest-wins mailbox.

In lock-step every observation is answered with exactly one ActionChunk. In real time a chunk is published when a new
plan is due, and STATUS_NONE tells of errors and stale observations, at most once a second for the same reason.

The main thread never waits for an inference to end. A reset is taken up by the worker between two of them; what was
inferred before is not published after its reply. /diagnostics tells of one that takes too long (`longest_s`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import string
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from e0_msgs.msg import ExecutorState
from e0_msgs.msg import Observation as ObservationMsg
from e0_policy.embodiment import load_embodiment
from e0_policy.policy import Policy
from e0_policy.replay import ReplayPolicy
from e0_policy.types import ActionChunk, Observation, Stale
from e0_ros import diagnostics, interfaces
from e0_ros.config import ConfigError, declare_parameters
from e0_ros.conversions import chunk_from_msg, chunk_to_msg, observation_from_msg, to_ns
from e0_ros.core.bag_reader import Bag
from e0_ros.core.calibration_bag import first_images
from e0_ros.core.dataset_table import state_of
from e0_ros.core.live_shadow import LiveShadow
from e0_ros.core.live_shadow import said as shadow_figures
from e0_ros.core.mailbox import Mailbox
from e0_ros.core.plan_keeper import InForce
from e0_ros.core.policy_config import PolicyConfig
from e0_ros.core.policy_session import Answer, PolicySession, is_error
from e0_ros.core.replay_source import load_recording
from e0_ros.core.view_guard import ViewGuard
from e0_ros.introductions import Introductions
from e0_ros.placed_policy import PlacedPolicy
from e0_ros.policies import first_views, load_checkpoint
from e0_ros.process import refuse_unknown_parameters, run_node

LOCKSTEP_TIMEOUT_S = 10.0
REPEAT_S = 1.0
RESET_S = 1.0
"""A reset is answered when it is done, and after this at the latest."""
NICENESS = 5


def make_policy(config: PolicyConfig) -> Policy:
    """Build the configured policy.

    Raises:
        ValueError: a file is missing or wrong, or the policy's code or its dependencies are not installed.

    """
    if config.policy == "replay":
        if not config.recording:
            raise ConfigError("PolicyConfig.recording is empty; policy replay needs a bag or an .npz file")
        recording = load_recording(Path(config.recording), chunk_from_msg)
        name = Path(config.recording).name
        return ReplayPolicy(recording.rows, recording.period_ns, recording.embodiment, name=name)
    try:
        settings = yaml.safe_load(config.settings)
    except yaml.YAMLError:
        settings = None
    if not isinstance(settings, dict):
        raise ConfigError(f"PolicyConfig.settings is {config.settings!r}; a YAML mapping is needed")
    return load_checkpoint(config.checkpoint, config.device, settings, config.embodiment)


def make_guard(config: PolicyConfig) -> ViewGuard | None:
    """What compares the views, if there is something to compare them with.

    Raises:
        ValueError: the pictures cannot be read.

    """
    if config.lockstep:
        return None
    if config.view_reference:
        return ViewGuard(first_images(Bag(Path(config.view_reference))))
    before = first_views(Path(config.checkpoint)) if config.checkpoint else {}
    return ViewGuard(before) if before else None


def new_session() -> str:
    """A random session identifier, `[a-z0-9]{12}`."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))


class PolicyNode(Node):
    """The shell: the main thread receives, the worker infers and publishes."""

    def __init__(self, policy: Policy | None = None, **kwargs: Any) -> None:
        super().__init__("policy", **kwargs)
        self._config = config = declare_parameters(self, PolicyConfig)
        refuse_unknown_parameters(self)
        arm = load_embodiment(config.embodiment)
        self._policy = policy = make_policy(config) if policy is None else policy
        if config.camera_places:
            policy = placed = PlacedPolicy(policy, arm.base_frame, config.lockstep, self.get_logger().warning)
            self._subscribe(interfaces.TF_STATIC, placed.hear)
        source, age_ns = "replay" if config.policy == "replay" else "policy", int(config.max_observation_age_ms * 1e6)
        steady = time.monotonic_ns
        terms = config.lockstep, age_ns, steady, config.doubt_nats
        self._session = PolicySession(policy, source, new_session(), arm, *terms)
        self._mailbox: Mailbox[tuple[int, Observation | Stale | None]] = Mailbox()  # after how many resets; None: reset
        self._state = threading.Condition()  # of what both threads know; held for moments, never while a policy works
        self._in_force: InForce | None = None
        self._previous_ns: int | None = None
        self._resets_asked = self._resets_done = self._working_ns = self._plan_ns = 0
        self._not_reset = ""
        self._told: dict[str, float] = {}
        self._guard, self._guard_due = make_guard(config), True
        self._shadow = LiveShadow(arm) if config.shadow else None
        self._chunks = self._publisher(interfaces.SHADOW_CHUNK if config.shadow else interfaces.ACTION_CHUNK)
        self._diagnostics = self._publisher(interfaces.DIAGNOSTICS)
        self._subscribe(interfaces.OBSERVATION, self._on_observation)
        self._subscribe(interfaces.EXECUTOR_STATE, self._on_executor_state)
        self._introductions = Introductions(self)
        service = interfaces.RESET_POLICY
        self.create_service(interfaces.message_class(service.type), service.name, self._on_reset)
        self.create_timer(1.0, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._worker = threading.Thread(target=self._work, name="policy worker", daemon=True)
        self._worker.start()

    def destroy_node(self) -> None:
        """Stop the worker, then the node."""
        self._mailbox.close()
        with self._state:
            self._state.notify_all()
        self._worker.join(timeout=5.0)
        if end := getattr(self._policy, "close", None):
            end()
        super().destroy_node()

    def _publisher(self, topic: interfaces.Topic) -> Any:
        return self.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())

    def _subscribe(self, topic: interfaces.Topic, callback: Any) -> None:
        self.create_subscription(interfaces.message_class(topic.type), topic.name, callback, topic.qos.profile())

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_observation(self, msg: ObservationMsg) -> None:
        try:
            observation = observation_from_msg(msg)
        except ValueError as error:
            observation = Stale(to_ns(msg.header.stamp), "observation", f"unreadable: {error}", 0)
        if self._mailbox.put((self._resets_asked, observation)):
            self._session.counts["replaced"] += 1

    def _on_executor_state(self, msg: ExecutorState) -> None:
        stamp_ns, committed_ns, t0_ns = to_ns(msg.header.stamp), to_ns(msg.committed_until), to_ns(msg.t0)
        in_force = InForce(stamp_ns, msg.source, msg.session, msg.sequence, committed_ns, t0_ns)
        with self._state:
            self._in_force = in_force
            self._state.notify_all()

    def _on_reset(self, request: Any, response: Any) -> Any:
        if self._config.lockstep:
            self._introductions.meet([interfaces.OBSERVATION.name, interfaces.EXECUTOR_STATE.name])
        with self._state:
            self._resets_asked += 1
            self._not_reset = ""
            self._mailbox.put((self._resets_asked, None))
            self._state.notify_all()
            done = self._state.wait_for(lambda: self._not_reset or self._resets_done == self._resets_asked, RESET_S)
            response.success, response.message = not self._not_reset, self._not_reset
        if not done:
            response.message = "the policy still infers; what comes of it is dropped, and then it is reset"
        return response

    def _work(self) -> None:
        if not self._config.lockstep:
            with contextlib.suppress(OSError):  # inference is a long burst, and the arm must not wait for it
                me = threading.get_native_id()
                os.setpriority(os.PRIO_PROCESS, me, max(NICENESS, os.getpriority(os.PRIO_PROCESS, me)))
        while not self._mailbox.closed:
            item = self._mailbox.take()
            if item is None or item[0] != self._resets_asked:
                continue
            number, observation = item
            self._working_ns = time.monotonic_ns()
            not_reset = self._reset(number)
            if observation is not None:
                answer = not_reset or self._answer(observation)
                with self._state:
                    told = number == self._resets_asked and not self._mailbox.closed
                    if told:
                        self._tell(observation.stamp_ns, answer)
                if told:
                    self._session.prepare()
            self._working_ns = 0

    def _reset(self, number: int) -> str:
        """Take up a reset, if that many are not done; why it failed, empty if it did not."""
        if number == self._resets_done:
            return ""
        try:
            self._session.reset()
        except Exception as error:  # a policy may raise anything; it is tried again before the next plan
            answer = self._session.failed(error)
            with self._state:
                self._not_reset = answer
                self._state.notify_all()
            return answer
        self._told.clear()
        self._guard_due, self._previous_ns = True, None
        with self._state:
            if self._shadow:
                self._shadow.forget()
            self._resets_done = number
            self._state.notify_all()
        return ""

    def _answer(self, observation: Observation | Stale) -> Answer:
        try:
            if isinstance(observation, Observation):
                self._look(observation)
        except Exception as error:  # an observation may hold anything
            return self._session.failed(error)
        answer = self._session.answer(observation, self._now_ns(), self._executor_state)
        self._previous_ns = observation.stamp_ns
        if isinstance(answer, ActionChunk):
            self._plan_ns = len(answer.rows) * answer.period_ns
        return answer

    def _look(self, observation: Observation) -> None:
        if self._guard and self._guard_due:
            self._compare_views(self._guard, observation)
        if self._shadow:
            with self._state:
                self._shadow.done(observation.stamp_ns, state_of(observation))

    @property
    def longest_s(self) -> float:
        """How long an inference may take: in real time as long as the last plan, with which the arm comes to its end,
        or as an observation may be old; in lock-step, and the first, which may compile, as any wait.
        """
        if self._config.lockstep or not self._plan_ns:
            return LOCKSTEP_TIMEOUT_S
        return max(self._plan_ns / 1e9, self._config.max_observation_age_ms / 1e3)

    def _hangs(self) -> str:
        """That nothing comes of the policy any more, in words; empty if it works or rests."""
        if not self._worker.is_alive():
            return "the thread that infers has ended; restart the node"
        since_ns = self._working_ns
        took_s = (time.monotonic_ns() - since_ns) / 1e9 if since_ns else 0.0
        if took_s <= self.longest_s:
            return ""
        return f"the policy has inferred for {took_s:.1f} s; {self.longest_s:g} are allowed"

    def _compare_views(self, guard: ViewGuard, observation: Observation) -> None:
        """Say once an episode whether a fixed camera has moved since the data were recorded, with overlays."""
        self._guard_due = False
        guard.look(observation.views)
        folder = Path(self._config.overlay_dir or ".")
        try:
            for view, picture in guard.overlays.items() if self._config.overlay_dir else ():
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"view_{view}.png").write_bytes(picture)
        except OSError as error:  # of a full disk the arm must not stand
            self.get_logger().warning(f"no overlay is written: {error}")
        words = f"views since the data were recorded: {guard.words or 'none of them is here'}"
        if guard.moved:
            self.get_logger().warning(words)
        else:  # a place in the source has one severity, says rclpy
            self.get_logger().info(words)

    def _executor_state(self) -> InForce | None:
        """The executor's newest state; in lock-step that of the tick before, which is on its way."""
        with self._state:
            previous_ns = self._previous_ns
            if self._config.lockstep and previous_ns is not None:
                arrived = self._state.wait_for(
                    lambda: (
                        self._mailbox.closed
                        or self._resets_asked != self._resets_done
                        or (self._in_force is not None and self._in_force.stamp_ns >= previous_ns)
                    ),
                    LOCKSTEP_TIMEOUT_S,
                )
                if not arrived:
                    raise TimeoutError(f"no executor state of tick {previous_ns} within {LOCKSTEP_TIMEOUT_S:.0f} s")
            return self._in_force

    def _tell(self, stamp_ns: int, answer: Answer) -> None:
        if self._shadow and isinstance(answer, ActionChunk):
            self._shadow.plan(answer)
        if not isinstance(answer, str):
            self._chunks.publish(chunk_to_msg(answer, self._now_ns()))
            return
        if is_error(answer):
            self.get_logger().error(f"no plan: {answer}", throttle_duration_sec=REPEAT_S)
        kind, now_s = answer.split(":")[0], time.monotonic()
        if not self._config.lockstep and now_s - self._told.get(kind, -REPEAT_S) < REPEAT_S:
            return
        self._told[kind] = now_s
        self._chunks.publish(chunk_to_msg(self._session.none(stamp_ns, answer), self._now_ns()))

    def _diagnose(self) -> None:
        names = ("plans", "kept", "none", "errors", "stale", "too old", "replaced", "committed rows not kept")
        session = self._session
        values: dict[str, object] = {name: session.counts[name] for name in names}
        values["latency [ms]"], values["observation age [ms]"] = session.latency_ns / 1e6, session.age_ns / 1e6
        values["checkpoint"] = session.policy.checkpoint
        if self._shadow:
            with self._state:
                errors = self._shadow.errors()
            values |= shadow_figures(errors) if errors else {"shadow plans": 0}
        runs = "policy only watches" if self._shadow else "policy runs"
        if self._guard:
            values["views since the data were recorded"] = self._guard.words or "not compared yet"
        trouble = self._hangs() or session.error
        level, message = (diagnostics.ERROR, trouble) if trouble else (diagnostics.OK, runs)
        if self._guard and self._guard.moved and not trouble:
            level, message = diagnostics.WARN, f"{runs}; a camera has moved: {', '.join(self._guard.moved)}"
        self._diagnostics.publish(diagnostics.diagnostics_msg("policy", level, message, values, self._now_ns()))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node. Exit status 2: a parameter, the recording or the checkpoint is wrong."""
    return run_node(PolicyNode, args)


if __name__ == "__main__":
    sys.exit(main())
