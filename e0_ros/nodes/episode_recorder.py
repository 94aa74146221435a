"""Owns the life of an episode and records it: one bag per episode, of every topic of the graph."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

import yaml
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import serialize_message
from std_msgs.msg import String

from e0_msgs.msg import EpisodeEvent, RecorderState
from e0_msgs.srv import EndEpisode, StartEpisode
from e0_ros.config import ConfigError, declare_parameters, to_mapping
from e0_ros.conversions import deserialize, stamp_of, to_time
from e0_ros.core.bag_writer import BagError, BagSummary, free_bytes, taken
from e0_ros.core.definitions import installed
from e0_ros.core.episode import Ended, Episode, EpisodeLife, Mode, Refused
from e0_ros.core.losses import LossCounter, describe_losses
from e0_ros.core.recorder_config import BagConfig, RecorderConfig, StoreConfig
from e0_ros.core.recording import Received, Recording
from e0_ros.core.silence import Silence
from e0_ros.diagnostics import ERROR, OK, WARN, diagnostics_msg
from e0_ros.interfaces import (
    CLOCK,
    DIAGNOSTICS,
    END_EPISODE,
    EPISODE_EVENT,
    INSTRUCTION,
    RECORDER_STATE,
    START_EPISODE,
    TF_STATIC,
    Topic,
    message_class,
)
from e0_ros.process import give_back_memory, run_node
from e0_ros.raw_inputs import RawInputs
from e0_ros.version import code_version

POLL_S = 0.02
LAST_WORD_S = 1.0
"""Longest wait at the end for those who are to hear that the episode has ended: what is not sent dies with the node."""


class EpisodeRecorder(Node):
    """Raw subscriptions in, bags out; serves START_EPISODE and END_EPISODE."""

    def __init__(self, **options: Any) -> None:
        super().__init__("episode_recorder", **options)
        self._config = declare_parameters(self, RecorderConfig)
        self._bag_config = declare_parameters(self, BagConfig)
        self._store_config = declare_parameters(self, StoreConfig)
        self._root = Path(self._config.bag_dir).expanduser().absolute()
        self._topics = self._config.topics()
        for topic in self._topics:
            installed().type_hash(topic.type)
        self._about, self._attachments = self._describe()
        self._life = EpisodeLife()
        self._losses = LossCounter()
        steady_topics = [topic.name for topic in self._topics if topic.steady]
        self._silence = Silence(steady_topics, int(self._config.silent_s * 1e9))
        self._silent: list[str] = []
        self._latched: dict[str, dict[Any, bytes]] = {}
        self._used: set[str] = set()
        self._recording: Recording | None = None
        self._last = RecorderState()
        self._events = self.create_publisher(EpisodeEvent, EPISODE_EVENT.name, EPISODE_EVENT.qos.profile())
        self._states = self.create_publisher(RecorderState, RECORDER_STATE.name, RECORDER_STATE.qos.profile())
        diagnostics = message_class(DIAGNOSTICS.type)
        self._diagnostics = self.create_publisher(diagnostics, DIAGNOSTICS.name, DIAGNOSTICS.qos.profile())
        self._inputs = RawInputs(self, self._topics, self._on_message)
        self.create_service(StartEpisode, START_EPISODE.name, self._on_start)
        self.create_service(EndEpisode, END_EPISODE.name, self._on_end)
        self._sim_time = bool(self.get_parameter("use_sim_time").value)
        self._clock_ns = 0
        self._ticks = 0
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(POLL_S, self._inputs.poll, clock=steady)
        self.create_timer(0.25, self._on_tick, clock=steady)

    def destroy_node(self) -> None:
        """End a running episode as unlabelled and close its bag, then destroy the node."""
        if self._life.episode is not None:
            self._finish("unlabelled", "the recorder was shut down")
            self._events.wait_for_all_acked(Duration(seconds=LAST_WORD_S))
        super().destroy_node()

    # Messages

    def _on_message(self, topic: Topic, data: bytes, info: Any) -> None:
        number = info.get("publication_sequence_number")
        self._losses.received(topic.name, info["publisher_gid"]["data"] if number else b"", number)
        self._silence.heard(topic.name, time.monotonic_ns())
        if topic.qos.latched:
            self._keep(topic, bytes(info["publisher_gid"]["data"]), data)
        if topic is CLOCK:
            with suppress(ValueError):  # else bytes that are no clock
                self._clock_ns = max(self._clock_ns, stamp_of(data))  # discovery may deliver old ones late
        log_ns = self._clock_ns if self._sim_time else info["received_timestamp"] or self._now_ns()
        self._store(topic, data, log_ns, info["source_timestamp"], number or 0)

    def _keep(self, topic: Topic, publisher: bytes, data: bytes) -> None:
        """Remember a latched message for the bags to come: the last one, of /tf_static the last of each publisher."""
        kept = self._latched.setdefault(topic.name, {})
        if topic is TF_STATIC:
            kept.pop(publisher, None)
        else:
            kept.clear()
        kept[publisher] = data

    def _store(self, topic: Topic, data: bytes, log_ns: int, publish_ns: int, number: int = 0) -> None:
        recording, episode = self._recording, self._life.episode
        if recording is None or recording.fault:
            return
        log_ns = max(log_ns, episode.start_ns) if episode is not None else log_ns
        qos = self._inputs.qos.get(topic.name, topic.qos)
        received = Received(topic.name, topic.type, qos, data, log_ns, publish_ns, number)
        if not recording.put(received) and not recording.fault:
            self._losses.dropped(topic.name)

    def _store_own(self, topic: Topic, message: Any, log_ns: int) -> None:
        self._store(topic, serialize_message(message), log_ns, time.time_ns())

    # The life of an episode

    def _on_start(self, request: Any, response: Any) -> Any:
        name = self._life.check_start(request.episode_id, time.time_ns(), self._taken)
        if isinstance(name, Refused):
            response.message = name.reason
            return response
        self._inputs.follow_publishers()
        self._inputs.wait_for_publishers(self._config.settle_s)
        if strangers := self._inputs.introduce(self._config.discovery_s if self._sim_time else self._config.settle_s):
            text = "what they publish first may be missing; they do not answer for their parameters"
            self.get_logger().warning(f"{', '.join(strangers)}: {text}")
        if self._sim_time and not self._hear_simulator():
            response.message = f"no {CLOCK.name} was heard for {self._config.discovery_s:g} s; is the simulator up?"
            return response
        self._inputs.drain(self._config.quiet_s, self._config.settle_s)
        if self._sim_time and not self._used:  # before it, stills were shown again and again to whoever was found
            self._losses.forget()
        instructions = list(self._latched.get(INSTRUCTION.name, {}).values())
        text = text_of(instructions[-1]) if instructions else ""
        episode = Episode(name, self._now_ns(), request.task, request.seed, text)
        try:
            recording = self._open(episode) if self._config.record else None
        except BagError as error:
            response.message = str(error)
            self.get_logger().error(str(error))
            return response
        self._begin(episode, recording)
        response.success, response.episode_id = True, name
        response.bag = str(self._root / name) if recording else ""
        return response

    def _hear_simulator(self) -> bool:
        """Wait for clock and instruction; whether there is a clock.

        Nothing is said twice in lock-step, and on a busy machine discovery takes seconds.
        """
        end = time.monotonic() + self._config.discovery_s
        while not (self._clock_ns and self._latched.get(INSTRUCTION.name)) and time.monotonic() < end:
            self._inputs.poll()
            time.sleep(0.01)
        return self._clock_ns > 0

    def _open(self, episode: Episode) -> Recording:
        recording = Recording(self._root, episode.id, self._bag_config, self._store_config, installed())
        recording.start({**self._about, **_custom(episode)}, self._attachments, episode.start_ns)
        return recording

    def _begin(self, episode: Episode, recording: Recording | None) -> None:
        self._recording = recording
        self._losses.start()
        self._silence.start(time.monotonic_ns())
        self._silent = []
        self._life.start(episode)
        self._used.add(episode.id)
        event = self._event(EpisodeEvent.START, episode, episode.start_ns)
        self._store_own(EPISODE_EVENT, event, episode.start_ns)
        for topic in self._topics:
            for latched in self._latched.get(topic.name, {}).values():
                self._store(topic, latched, episode.start_ns, time.time_ns())
        self._events.publish(event)
        self._publish_state()
        self.get_logger().info(f"episode {episode.id} started")

    def _on_end(self, request: Any, response: Any) -> Any:
        refused = self._life.check_end(request.outcome)
        if refused is not None:
            response.message = refused.reason
            return response
        summary = self._finish(request.outcome, request.note)
        response.success, response.message = not self._life.reason, self._life.reason
        response.messages, response.lost = self._last.messages, self._last.lost
        response.unnumbered, response.unencoded = self._last.unnumbered, self._last.unencoded
        response.bytes, response.duration = self._last.bytes, self._last.duration
        response.bag = str(summary.path) if summary else self._last.bag
        return response

    def _finish(self, outcome: str, note: str) -> BagSummary | None:
        self._inputs.drain(self._config.quiet_s, self._config.settle_s)
        ended = self._life.end(outcome, note, self._now_ns())
        assert isinstance(ended, Ended)
        event = self._event(EpisodeEvent.END, ended.episode, ended.end_ns, outcome, note)
        self._store_own(EPISODE_EVENT, event, ended.end_ns)
        summary = self._close_bag(ended)
        self._events.publish(event)
        self._publish_state()
        return summary

    def _close_bag(self, ended: Ended) -> BagSummary | None:
        recording, self._recording = self._recording, None
        self._last = self._state_of(recording, ended.episode, ended.duration_s)
        if recording is None:
            return None
        custom = {"outcome": ended.outcome, "note": ended.note, "lost_by_topic": json.dumps(self._losses.known())}
        custom["lost"] = describe_losses(self._last.lost, self._last.unnumbered)
        summary = recording.close(custom, discard=ended.outcome == "discard")
        give_back_memory()
        self._complain(recording)
        self._last.unencoded = recording.unencoded.total()
        if recording.fault:
            self._fault(recording.fault)
        if summary is not None:
            self._last.bag, self._last.bytes, self._last.messages = (
                str(summary.path),
                summary.size_bytes,
                summary.messages,
            )
        self._report(ended)
        return summary

    def _report(self, ended: Ended) -> None:
        last, name = self._last, ended.episode.id
        text = (
            f"episode {name} ended: {ended.outcome}, {ended.duration_s:.1f} s, {last.messages} messages, "
            f"{last.bytes / 1e6:.2f} MB, {describe_losses(last.lost, last.unnumbered)} lost; {last.bag}"
        )
        counts = ", ".join(f"{topic} {count}" for topic, count in self._losses.by_topic.most_common())
        remarks = [f"lost: {counts}"] if counts else []
        if last.unnumbered:
            remarks.append(f"{last.unnumbered} messages came without their publisher's number")
        if last.unencoded:
            remarks.append(f"{last.unencoded} messages are stored as they came, because they could not be encoded")
        if remarks:
            self.get_logger().warning(f"{text} ({'; '.join(remarks)})")
        else:
            self.get_logger().info(text)

    # Reports

    def _on_tick(self) -> None:
        self._ticks += 1
        recording = self._recording
        changed = self._listen_for_silence()
        if recording is not None:
            self._complain(recording)
            if recording.fault and self._life.reason != recording.fault:
                self._fault(recording.fault)
                changed = True
        if self._ticks % 4 == 0:
            self._inputs.follow_publishers()
        if changed or self._ticks % 4 == 0:
            self._publish_state()

    def _listen_for_silence(self) -> bool:
        """Note which topics have stopped, which in lock-step they may; True if that has changed."""
        watched = self._config.silent_s and self._life.episode is not None and not self._sim_time
        silent = self._silence.of(time.monotonic_ns()) if watched else []
        for topic in [topic for topic in silent if topic not in self._silent]:
            self.get_logger().warning(f"{topic} is silent for more than {self._config.silent_s:g} s")
        changed, self._silent = silent != self._silent, silent
        return changed

    def _complain(self, recording: Recording) -> None:
        while not recording.complaints.empty():
            self.get_logger().warning(recording.complaints.get())

    def _fault(self, reason: str) -> None:
        if self._life.reason != reason:
            self._life.fault(reason)
            self.get_logger().error(reason)

    def _free(self) -> tuple[int, str]:
        """Bytes that are free for bags, and why that is not known; a disk that is gone ends what it was to hold."""
        try:
            return free_bytes(self._root), ""
        except OSError as error:
            trouble = f"{self._root} cannot be used ({error.strerror}): is its disk there?"
            if self._recording is not None and self._life.mode is Mode.RECORDING:
                self._fault(trouble)
            return 0, trouble

    def _publish_state(self) -> None:
        episode, (free, trouble) = self._life.episode, self._free()
        if episode is not None:
            self._last = self._state_of(self._recording, episode, (self._now_ns() - episode.start_ns) / 1e9)
        state = copy(self._last)
        if self._life.mode is Mode.IDLE:
            state.episode_id = state.bag = ""
        state.header.stamp = to_time(self._now_ns())
        state.mode, state.reason = int(self._life.mode), self._life.reason or trouble
        if self._silent and self._life.mode is Mode.RECORDING:
            state.reason = f"silent: {', '.join(self._silent)}"
        state.free_bytes = free
        self._states.publish(state)
        self._diagnose(state)
        self._store_own(RECORDER_STATE, state, self._now_ns())

    def _state_of(self, recording: Recording | None, episode: Episode, duration_s: float) -> RecorderState:
        state = RecorderState(episode_id=episode.id, duration=duration_s, lost=self._losses.total)
        state.unnumbered = self._losses.unnumbered.total()
        if recording is not None:
            state.bag, state.messages, state.bytes = str(recording.path), recording.messages, recording.size_bytes
            state.unencoded = recording.unencoded.total()
        return state

    def _diagnose(self, state: RecorderState) -> None:
        faulty, doubtful = self._life.mode is Mode.FAULT, state.reason or state.lost or state.unencoded
        level = ERROR if faulty else WARN if doubtful else OK
        message = state.reason or ("messages lost or not encoded" if doubtful else self._life.mode.name.lower())
        values = {"messages": state.messages, "lost": describe_losses(state.lost, state.unnumbered)}
        values |= {"unencoded": state.unencoded, "free [GB]": state.free_bytes / 1e9}
        self._diagnostics.publish(diagnostics_msg("episode_recorder", level, message, values, self._now_ns()))

    def _event(self, kind: int, episode: Episode, stamp_ns: int, outcome: str = "", note: str = "") -> EpisodeEvent:
        event = EpisodeEvent(kind=kind, episode_id=episode.id, instruction=episode.instruction)
        event.header.stamp = to_time(stamp_ns)
        event.task, event.seed, event.outcome, event.note = episode.task, episode.seed, outcome, note
        return event

    def _describe(self) -> tuple[dict[str, str], dict[str, str]]:
        """What every bag says of the code and its configuration, and the files attached to it."""
        parts = (self._config, self._bag_config, self._store_config)
        text = yaml.safe_dump({k: v for part in parts for k, v in to_mapping(part).items()}, sort_keys=False)
        attachments = {"recorder.yaml": text}
        if path := self._config.configuration:
            try:
                attachments["configuration.yaml"] = Path(path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"configuration is {path!r}, which cannot be read: {error}") from None
        return {"code_version": code_version(), "configuration": text}, attachments

    def _taken(self, episode_id: str) -> bool:
        """Whether there is such a bag; one that was set aside gives its name to another attempt."""
        return taken(self._root, episode_id) if self._config.record else episode_id in self._used

    def _now_ns(self) -> int:
        return max(self._clock_ns, int(self.get_clock().now().nanoseconds)) if self._sim_time else time.time_ns()


def text_of(data: bytes) -> str:
    """Text of a serialised std_msgs/String; empty if it is none."""
    try:
        return str(deserialize(data, String).data)
    except ValueError:
        return ""


def _custom(episode: Episode) -> dict[str, str]:
    return {
        "episode_id": episode.id,
        "task": episode.task,
        "seed": str(episode.seed),
        "instruction": episode.instruction,
    }


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status 2: a parameter is wrong."""
    return run_node(EpisodeRecorder, args, run)


def run(node: EpisodeRecorder, stopping: threading.Event) -> None:
    """Spin until told to stop. An executor driven by events would hand over what only `RawInputs.poll` may take."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stopping.is_set():
        executor.spin_once(timeout_sec=0.25)
    executor.shutdown()


if __name__ == "__main__":
    sys.exit(main())
