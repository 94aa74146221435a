"""A client of a running graph: calls its services in the order of an episode and hears what its nodes report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node, NodeNameNonExistentError

from e0_msgs.msg import ExecutorState, RecorderState, SimState
from e0_ros import interfaces
from e0_ros.core.arm_session import NOT_READY
from e0_ros.core.live_status import Status, streams_of
from e0_ros.core.traces import mode_name
from e0_ros.interfaces import Service, Topic, message_class
from e0_ros.readiness import SETTLE_S

SPEEDS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
BRING_S = 180.0
ABSENT_S = 2.0
TELLING_S = 2.0
"""A take this long tells how much it writes per second."""
SILENT_S = 3.0
"""Nodes that report every second and have not for so long are silent."""


class GraphCallError(RuntimeError):
    """A service of the graph refused, did not answer, or is not there; the message names it and its reason."""


class GraphRefusal(GraphCallError):
    """A service was asked, and answered that it does not agree."""


class GraphClient(Node):  # type: ignore[misc]
    """Every call waits for its reply, so that nothing depends on the order of messages.

    Args:
        timeout_s: steady-clock bound of each wait.
        health: called while waiting; raises if the graph is gone.

    """

    def __init__(self, timeout_s: float = 60.0, health: Callable[[], None] = lambda: None) -> None:
        context = Context()
        rclpy.init(args=[], context=context)
        super().__init__("e0_record", context=context)
        self._timeout_s, self.health = timeout_s, health
        self.leaving = False
        """Somebody wants to leave: nothing is armed or brought anywhere any more."""
        self._ros = SingleThreadedExecutor(context=context)
        self._ros.add_node(self)
        self._service_clients: dict[str, Any] = {}
        self._heard_s: dict[str, float] = {}
        self._values: dict[str, str] = {}
        self._complaint = ""
        self._mode = ""
        self._executor_values: dict[str, str] = {}
        self._session_values: dict[str, str] = {}
        self.arm_fault = ""
        self.recorder = RecorderState()
        self.sim: SimState | None = None
        self._listen(interfaces.DIAGNOSTICS, self._on_diagnostics)
        self._listen(interfaces.RECORDER_STATE, self._on_recorder)
        self._listen(interfaces.EXECUTOR_STATE, self._on_executor)
        self._listen(interfaces.SIM_STATE, self._on_sim)
        self._listen(interfaces.ARM_FAULT, self._on_arm_fault)
        topic = interfaces.SPEED
        self._speed = self.create_publisher(message_class(topic.type), topic.name, topic.qos.profile())

    def close(self) -> None:
        """Leave the graph."""
        self._ros.remove_node(self)
        self.destroy_node()
        self.context.try_shutdown()

    def spin(self, seconds: float) -> None:
        """Take in what has come, at most for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._ros.spin_once(left)

    def has(self, service: Service) -> bool:
        """Whether its owner serves it, as far as is known; on a busy machine its client may still have to find it."""
        if self._client(service).service_is_ready():
            return True
        with suppress(NodeNameNonExistentError):
            return any(n == service.name for n, _ in self.get_service_names_and_types_by_node(service.owner, "/"))
        return False

    def wait_for(self, *services: Service) -> None:
        """Wait until all are served, and a moment for the rest of the graph to be found.

        Raises:
            GraphCallError: names those that are not within the timeout.

        """
        deadline = time.monotonic() + self._timeout_s
        while missing := [s for s in services if not self.has(s)]:
            self.health()
            if time.monotonic() > deadline:
                names = ", ".join(f"{s.owner} ({s.name})" for s in missing)
                raise GraphCallError(f"not up within {self._timeout_s:.0f} s: {names}; is the graph running?")
            self.spin(0.1)
        self.spin(SETTLE_S)

    def call(self, service: Service, **fields: Any) -> Any:
        """The reply of a service that has agreed.

        Raises:
            GraphCallError: it is not there, or did not answer.
            GraphRefusal: it refused.

        """
        reply = self.request(service, **fields)
        if not reply.success:
            raise GraphRefusal(f"{service.owner} refused {service.name}: {reply.message}")
        return reply

    def request(self, service: Service, **fields: Any) -> Any:
        """The reply of a service, whatever it is.

        Raises:
            GraphCallError: it is not there, or did not answer.

        """
        client = self._client(service)
        patience_s = self._timeout_s if self.has(service) else ABSENT_S
        if not client.service_is_ready() and not client.wait_for_service(patience_s):
            raise GraphCallError(f"{service.owner} does not serve {service.name}; is it running?")
        future = client.call_async(message_class(service.type).Request(**fields))
        deadline = time.monotonic() + self._timeout_s
        while not future.done():
            self.health()
            if time.monotonic() > deadline:
                client.remove_pending_request(future)
                raise GraphCallError(f"{service.owner} did not answer {service.name} within {self._timeout_s:.0f} s")
            self._ros.spin_until_future_complete(future, 0.2)
        return future.result()

    def arm(self, not_before: Time) -> None:
        """Arm as soon as the executor agrees: an arm that comes to rest or is being made ready is waited for.

        Raises:
            GraphCallError: it does not within the timeout, or somebody has to do something first; the message has its
                last reason. Or this client is leaving.

        """
        deadline = time.monotonic() + self._timeout_s
        while not (reply := self.request(interfaces.ARM, not_before=not_before)).success:
            self.spin(0.05)  # hear what has been said meanwhile
            if self.leaving:
                raise GraphCallError("interrupted; nothing was armed")
            unfit = self.arm_fault and not self.arm_fault.startswith(NOT_READY)
            if unfit or self._mode.startswith("STOPPED") or time.monotonic() > deadline:
                raise GraphCallError(f"{interfaces.ARM.owner} did not arm: {reply.message}")

    def bring(self, service: Service) -> None:
        """Have `arm_session` bring the arm somewhere and wait until it is there.

        Raises:
            GraphCallError: it refused, failed, or took too long; the message says which step. Or this client is
                leaving: then the executor is stopped, so that what `arm_session` still goes through moves nothing.

        """

        def wait(done: Callable[[], bool], what: str) -> None:
            deadline = time.monotonic() + BRING_S
            while not done():
                self.health()
                if time.monotonic() > deadline:
                    raise GraphCallError(f"{service.owner} {what} within {BRING_S:.0f} s")
                if self.leaving:
                    raise GraphCallError(f"interrupted; {service.name} was not begun")
                self.spin(0.05)

        wait(lambda: "ended" in self._session_values, "said nothing on /diagnostics")
        before = self._session_values["ended"]
        self.call(service)
        wait(lambda: self.leaving or self._session_values["ended"] != before, f"did not end {service.name}")
        if self._session_values["ended"] == before:
            self.call(interfaces.STOP)
            raise GraphCallError(f"interrupted: the executor is stopped; {interfaces.RESET_STOP.name}, then arm")
        if failed := self._session_values.get("failed", ""):
            raise GraphCallError(f"{service.owner}: {failed}")

    @property
    def from_home_rad(self) -> float:
        """How far the joint that is farthest from home is, by `arm_session`'s last word; NaN if it said nothing."""
        return float(self._session_values.get("from_home_rad", "nan"))

    def change_speed(self, faster: bool) -> float:
        """Have plans followed at the next of `SPEEDS`; returns it."""
        now = float(self._executor_values.get("speed", "1"))
        others = [s for s in SPEEDS if s > now + 1e-3] if faster else [s for s in SPEEDS[::-1] if s < now - 1e-3]
        speed = others[0] if others else now
        self._executor_values["speed"] = str(speed)
        self._speed.publish(message_class(interfaces.SPEED.type)(data=speed))
        return speed

    def status(self, instruction: str, bytes_per_s: float) -> Status:
        """What a live view shows. `bytes_per_s` of the takes before counts until the running one has its own."""
        recorder, now = self.recorder, time.monotonic()
        if recorder.mode == RecorderState.RECORDING and recorder.duration >= TELLING_S:
            bytes_per_s = recorder.bytes / recorder.duration
        silent = [name for name in ("observation_sync", "episode_recorder") if self._silent(name, now)]
        complaint = recorder.reason if recorder.mode == RecorderState.FAULT else self._complaint
        return Status(
            streams=streams_of(self._values),
            trouble=f"the arm: {self.arm_fault}" if self.arm_fault else complaint,
            instruction=instruction,
            recording=recorder.mode != RecorderState.IDLE,
            duration_s=recorder.duration,
            size_bytes=recorder.bytes,
            lost=recorder.lost,
            free_bytes=recorder.free_bytes,
            bytes_per_s=bytes_per_s,
            mode=self._mode,
            silent=tuple(silent),
            lockstep=self.count_publishers(interfaces.CLOCK.name) > 0,
        )

    def _silent(self, name: str, now: float) -> bool:
        return now - self._heard_s.setdefault(name, now) > SILENT_S

    def _client(self, service: Service) -> Any:
        if service.name not in self._service_clients:
            self._service_clients[service.name] = self.create_client(message_class(service.type), service.name)
        return self._service_clients[service.name]

    def _listen(self, topic: Topic, callback: Callable[[Any], None]) -> None:
        self.create_subscription(message_class(topic.type), topic.name, callback, topic.qos.profile())

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name == "observation_sync":
                self._heard_s[status.name] = time.monotonic()
                self._values = {value.key: value.value for value in status.values}
                self._complaint = "" if status.level == b"\0" else status.message
            elif status.name == "chunk_executor":
                self._executor_values = {value.key: value.value for value in status.values}
            elif status.name == "arm_session":
                self._session_values = {value.key: value.value for value in status.values}

    def _on_recorder(self, msg: RecorderState) -> None:
        self._heard_s["episode_recorder"] = time.monotonic()
        self.recorder = msg

    def _on_executor(self, msg: ExecutorState) -> None:
        name = mode_name(msg.mode)
        self._mode = f"{name}: {msg.reason}" if name in ("HOLD", "STOPPED") else name

    def _on_arm_fault(self, msg: Any) -> None:
        self.arm_fault = msg.data

    def _on_sim(self, msg: SimState) -> None:
        self.sim = msg
