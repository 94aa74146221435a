"""arm_session: makes Franka's arm ready, watches its state, tells the executor of an arm that stopped, brings it back.

Services `/e0/arm/recover`, `home`, `rest` and `wave` beside it answer at once; /diagnostics says how it goes on. Every
motion is a chunk of source `home`, and so passes the executor.
"""

from __future__ import annotations

import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from e0_msgs.msg import ExecutorState
from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, FloatArray, NoChunk
from e0_ros import interfaces
from e0_ros.config import check, declare_parameters, setting
from e0_ros.conversions import chunk_to_msg
from e0_ros.core.arm_session import (
    NOT_READY,
    Approach,
    ArmSession,
    ArmSessionConfig,
    Step,
    approach,
    checked_pose,
    get_ready,
    recovery,
    to_pose,
    wave,
)
from e0_ros.core.arm_setup import ArmSetupConfig, controller_trouble
from e0_ros.core.fci import MODE_MEANS, FciConfig, FciWatch, RobotMode, explained
from e0_ros.core.joint_names import pick_joints
from e0_ros.diagnostics import ERROR, OK, WARN, diagnostics_msg
from e0_ros.distribution import distribution
from e0_ros.franka_driver import FrankaDriver
from e0_ros.process import run_node

POLL_S = 0.02
SAY_S = 0.1
KEEP_S = 0.1
SETTLE_S, ARM_AGAIN_S = 0.5, 0.1
"""Arming anchors where the arm is measured: it waits for an arm that lags to be where its controller holds it."""
QUIET_S, READY_AGAIN_S = 1.0, 5.0
"""The executor is disarmed for so long before the arm is made ready: what it sent last has come to its end."""
AHEAD_NS, TAKEN_NS = 200_000_000, 1_000_000_000
MOVES = 5
THERE_RAD, THERE_RAD_S = 0.005, 0.01
IDLE = MODE_MEANS[RobotMode.IDLE]
NOTHING_TO_RECOVER = f"the arm is fit to move: nothing to recover; {interfaces.HOME.name} goes home"
MOTIONS = (Step.HOME, Step.REST, Step.WAVE)


@dataclass(frozen=True)
class ArmSessionNodeConfig:
    """Which arm."""

    embodiment: str = setting("fr3", "arm: a shipped name or the path of a YAML file")

    def __post_init__(self) -> None:
        check(self)


class ArmSessionNode(Node):
    """The shell: states in, word to the executor out; steps begun, their ends told to the core."""

    def __init__(self) -> None:
        super().__init__("arm_session")
        self._arm = load_embodiment(declare_parameters(self, ArmSessionNodeConfig).embodiment)
        self._config = config = declare_parameters(self, ArmSessionConfig)
        self._setup = declare_parameters(self, ArmSetupConfig)
        self._watch = FciWatch(declare_parameters(self, FciConfig))
        limits = self._arm.position_lower, self._arm.position_upper
        home = config.home_rad or tuple(float(q) for q in self._arm.home)
        self._poses = {
            Step.HOME: checked_pose("home_rad", home, *limits),
            Step.REST: checked_pose("rest_rad", config.rest_rad, *limits),
        }
        self._distribution = distribution(config.distribution, os.environ)
        self._driver = FrankaDriver(self, config, self._setup)
        self._ready, self._ready_again_s, self._busy_s = False, 0.0, time.monotonic()
        self._session, self._steps_begun, self._ends = ArmSession(()), 0, 0
        self._move: Approach | None = None
        self._moves, self._arm_next_s = 0, 0.0
        self._sent_ns = self._kept_ns = self._sequence = 0
        self._name, self._followed = f"home-{secrets.token_hex(4)}", False
        self._executor: ExecutorState | None = None
        self._opening = self._measured_opening = math.nan
        self._said, self._said_s = "-", 0.0
        self._faults, self._chunks = self._publisher(interfaces.ARM_FAULT), self._publisher(interfaces.ACTION_CHUNK)
        self._diagnostics = self._publisher(interfaces.DIAGNOSTICS)
        self._subscribe(interfaces.EXECUTOR_STATE, self._on_executor)
        self._subscribe(interfaces.GRIPPER_COMMAND, self._on_gripper)
        self._subscribe(interfaces.GRIPPER_STATES, self._on_fingers)
        self._calls = {s.name: self._client(s) for s in (interfaces.ARM, interfaces.HOLD, interfaces.DISARM)}
        self._serve(interfaces.RECOVER, self._recovery)
        for service, pose in ((interfaces.HOME, Step.HOME), (interfaces.REST, Step.REST), (interfaces.WAVE, Step.WAVE)):
            self._serve(service, lambda pose=pose: to_pose(pose))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(POLL_S, self._poll, clock=steady)
        self.create_timer(1.0, self._report, clock=steady)

    def _publisher(self, topic: interfaces.Topic) -> Any:
        return self.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())

    def _subscribe(self, topic: interfaces.Topic, callback: Callable[[Any], None]) -> None:
        self.create_subscription(interfaces.message_class(topic.type), topic.name, callback, topic.qos.profile())

    def _client(self, service: interfaces.Service) -> Any:
        return self.create_client(interfaces.message_class(service.type), service.name)

    def _serve(self, service: interfaces.Service, steps_of: Callable[[], tuple[Step, ...]]) -> None:
        def answer(_: Any, response: Any) -> Any:
            steps = steps_of()
            response.message = self._refusal(steps)
            response.success = not response.message
            if response.success:
                self._begin(steps)
                response.message = self._session.progress
            self.get_logger().info(f"{service.name}: {response.message}")
            return response

        self.create_service(interfaces.message_class(service.type), service.name, answer)

    def _begin(self, steps: tuple[Step, ...]) -> None:
        self._session = ArmSession(steps, self._config.step_s)
        self._start(self._session.begin(time.monotonic_ns()))

    def _recovery(self) -> tuple[Step, ...]:
        """What brings the arm back: all of it after an error, less if it only was not made ready."""
        trouble = self._watch.trouble(time.monotonic_ns())
        if not trouble or (trouble == IDLE and not self._ready):
            return get_ready(self._setup.set_up)
        return recovery(self._distribution.deactivate_first, self._config.rearm, self._setup.set_up)

    def _refusal(self, steps: tuple[Step, ...]) -> str:
        if self._session.step:
            return f"busy: {self._session.progress}"
        fault = self._fault(time.monotonic_ns())
        if Step.ACTIVATE not in steps:
            return fault
        if Step.CLEAR not in steps and fault and not self._resting:
            return f"{fault}; the arm may still come to rest, try again in a second"
        return self._watch.beyond_recovery(time.monotonic_ns()) or ("" if fault else NOTHING_TO_RECOVER)

    # -- readiness -------------------------------------------------------------------------------------------------

    @property
    def _disarmed(self) -> bool:
        return self._executor is None or self._executor.mode in (ExecutorState.DISARMED, ExecutorState.STOPPED)

    @property
    def _resting(self) -> bool:
        """Disarmed for so long that nothing moves, so that what matters at arming only may be said and mended."""
        return self._disarmed and time.monotonic() - self._busy_s > QUIET_S

    def _fault(self, steady_ns: int) -> str:
        """Why the arm must not be moved, in words; empty if it is fit. What only matters at arming stops no motion."""
        trouble = self._watch.trouble(steady_ns)
        if trouble and (trouble != IDLE or self._ready):
            return trouble
        if not self._ready and self._disarmed:
            return f"{NOT_READY}; {self._session.progress if self._session.step else self._session.outcome or 'wait'}"
        states, setup = self._driver.controllers, self._setup
        if states is not None and (controller := controller_trouble(states, self._config.controller)):
            return controller
        if not self._resting:
            return ""
        report = self._watch.report
        payload = report.payload.trouble(setup) if report and setup.set_up else ""
        return controller_trouble(states, self._config.controller) or payload or self._clock_trouble()

    def _clock_trouble(self) -> str:
        return self._driver.clock.trouble(self._setup.clock_offset_ms)

    def _make_ready(self, steady_ns: int) -> None:
        """Begin to make the arm ready when its driver is up, has the controller, and nothing moves."""
        now_s, name = time.monotonic(), self._config.controller
        states = self._driver.controllers or {}
        waits = self._session.step is Step.FIT  # for the first state after the controllers were activated
        self._ready = self._ready and (waits or not self._watch.silent(steady_ns))
        if not self._ready and not self._setup.set_up and states.get(name) == "active":
            self._ready = True
        if self._ready or self._session.step or name not in states or now_s < self._ready_again_s:
            return
        if self._watch.trouble(steady_ns) in ("", IDLE) and self._resting:
            self._ready_again_s = now_s + READY_AGAIN_S
            self._begin(get_ready(self._setup.set_up))

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _on_executor(self, msg: ExecutorState) -> None:
        self._executor = msg
        self._busy_s = self._busy_s if self._disarmed else time.monotonic()
        if self._session.step in MOTIONS:
            self._go(msg)

    def _on_gripper(self, msg: Any) -> None:
        self._opening = min(max(float(msg.opening), 0.0), 1.0) if math.isfinite(msg.opening) else self._opening

    def _on_fingers(self, msg: Any) -> None:
        with suppress(ValueError):
            arm = self._arm
            width_m = float(pick_joints(msg.name, msg.position, arm.gripper_joint_names).sum())
            self._measured_opening = min(max(width_m / arm.gripper_width_m, 0.0), 1.0)

    def _poll(self) -> None:
        steady_ns = time.monotonic_ns()
        report = self._driver.newest()
        if report is not None:
            if report.last_motion_errors and self._watch.silent(steady_ns):
                errors = explained(report.last_motion_errors)
                self.get_logger().warning(f"the robot state is back; the arm's last motion was ended by: {errors}")
            self._watch.hear(report, steady_ns)
        self._driver.ask_controllers(time.monotonic())
        self._make_ready(steady_ns)
        fault = self._fault(steady_ns)
        if fault != self._said or time.monotonic() - self._said_s >= SAY_S:
            kind = interfaces.message_class(interfaces.ARM_FAULT.type)
            self._faults.publish(kind(data=fault))
            if fault != self._said:
                self.get_logger().warning(f"the arm: {fault or 'fit to move'}")
            self._said, self._said_s = fault, time.monotonic()
        if self._arm_next_s and time.monotonic() >= self._arm_next_s:
            self._arm_it(self._steps_begun)
        if self._session.step is Step.FIT:
            self._session.waits_for = fault
            if not fault:
                self._ended(self._steps_begun, True, "")
        longest_ns = 0 if self._move is None else 2 * self._move.duration_ns
        if self._session.late(steady_ns, longest_ns):
            self._finish()
        self._keep()

    # -- steps -----------------------------------------------------------------------------------------------------

    def _start(self, step: Step | None) -> None:
        self._move, self._followed, self._moves, self._steps_begun = None, False, 0, self._steps_begun + 1
        number = self._steps_begun

        def ended(well: bool, reason: str) -> None:
            self._ended(number, well, reason)

        if step is None:
            self._finish()
        elif step is Step.HOLD:
            self._ask(interfaces.HOLD, ended)
        elif step is Step.DISARM and self._executor is None:
            ended(True, "")  # an executor that is not up has told no controller anything
        elif step is Step.DISARM:
            self._ask(interfaces.DISARM, ended)
        elif step is Step.ARM:
            self._arm_next_s = time.monotonic() + SETTLE_S
        elif step not in (*MOTIONS, Step.FIT):
            self._driver.do(step, ended)

    def _ended(self, number: int, well: bool, reason: str) -> None:
        """How a step ended; word of one that was given up is not listened to."""
        if number == self._steps_begun:
            self._ready = self._ready or (well and self._session.step is Step.ACTIVATE)
            self._start(self._session.ended(well, reason, time.monotonic_ns()))

    def _finish(self) -> None:
        outcome = self._session.outcome
        self._steps_begun, self._ends, self._move = self._steps_begun + 1, self._ends + 1, None
        if outcome:
            self.get_logger().error(outcome)
        self._report()

    def _ask(self, service: interfaces.Service, ended: Callable[[bool, str], None]) -> None:
        client = self._calls[service.name]
        if not client.service_is_ready():
            ended(False, f"{service.owner} does not serve {service.name}")
            return
        request = interfaces.message_class(service.type).Request()
        client.call_async(request).add_done_callback(lambda f: ended(f.result().success, f.result().message))

    def _arm_it(self, number: int) -> None:
        """Ask until the executor agrees: it waits for a reference at rest, and for joint states after a recovery."""

        def answered(well: bool, reason: str) -> None:
            stopped = self._executor is not None and self._executor.mode == ExecutorState.STOPPED
            if well or stopped or number != self._steps_begun:
                self._ended(number, well, reason)
                return
            self._session.waits_for, self._arm_next_s = reason, time.monotonic() + ARM_AGAIN_S

        self._arm_next_s = 0.0
        if self._session.step is Step.ARM:
            self._ask(interfaces.ARM, answered)

    def _go(self, msg: ExecutorState) -> None:
        """Send the move once the executor is armed, and see it through."""
        step, number = self._session.step, self._steps_begun
        if msg.mode == ExecutorState.DISARMED and self._move is None:
            self._session.waits_for = msg.reason  # a state of before it was armed, or it will be told by the time
            return
        if msg.mode in (ExecutorState.DISARMED, ExecutorState.STOPPED):
            self._ended(number, False, msg.reason)
            return
        try:
            names = self._arm.joint_names
            at, speed = (pick_joints(msg.joint_names, values, names) for values in (msg.positions, msg.velocities))
        except ValueError as error:  # no state of this arm's executor
            self._session.waits_for = f"{interfaces.EXECUTOR_STATE.name}: {error}"
            return
        if self._move is None:
            self._send(step, at)
            return
        if msg.session == self._name:
            self._followed = True
        elif self._followed and msg.mode == ExecutorState.RUNNING:
            self._ended(number, False, f"{msg.source} took the arm")
            return
        now_ns = self.get_clock().now().nanoseconds
        far = np.abs(at - self._move.rows[-1]).max()
        over = now_ns - self._sent_ns > AHEAD_NS + self._move.duration_ns
        if over and far < THERE_RAD and np.abs(speed).max() < THERE_RAD_S:
            self._ended(number, True, "")
            return
        held = self._followed and msg.mode == ExecutorState.HOLD and now_ns - self._sent_ns > AHEAD_NS
        refused = not self._followed and now_ns - self._sent_ns > AHEAD_NS + TAKEN_NS
        if (held or refused) and self._moves < MOVES:  # a joint state that came late is no reason to give up
            self._move, self._followed = None, False
        elif held or refused:
            self._ended(number, False, f"hold: {msg.reason}" if held else f"refused: {msg.last_refusal}")

    def _send(self, step: Step, start: FloatArray) -> None:
        speed, arm = self._config.pose_speed_rad_s, self._arm
        start, poses = np.clip(start, arm.position_lower, arm.position_upper), self._poses
        move = (
            approach(start, poses[step], speed)
            if step in poses
            else wave(start, arm.position_lower, arm.position_upper)
        )
        told = math.nan if self._executor is None else self._executor.gripper_opening
        known = [opening for opening in (self._opening, told, self._measured_opening) if 0.0 <= opening <= 1.0]
        opening = known[0] if known else 1.0
        rows = np.column_stack((move.rows, np.full(len(move.rows), opening)))
        self._sent_ns, self._sequence, self._move = self.get_clock().now().nanoseconds, self._sequence + 1, move
        self._moves += 1
        chunk = ActionChunk(
            rows, self._sent_ns + AHEAD_NS, move.period_ns, "home", self._name, self._sequence,
            embodiment=self._arm.name, joint_names=self._arm.joint_names,
        )  # fmt: skip
        self._chunks.publish(chunk_to_msg(chunk, self._sent_ns))

    def _keep(self) -> None:
        """Tell the executor that the move is still wanted: when this node dies, the arm holds."""
        now_ns = self.get_clock().now().nanoseconds
        if self._move is None or self._session.step not in MOTIONS or now_ns - self._kept_ns < KEEP_S * 1e9:
            return
        self._kept_ns, self._sequence = now_ns, self._sequence + 1
        word = NoChunk(now_ns, "the move goes on", "home", self._name, self._sequence, keep=True)
        self._chunks.publish(chunk_to_msg(word, now_ns))

    def _from_home_rad(self) -> float:
        """How far the joint that is farthest from home is; NaN while the executor does not know."""
        state, names = self._executor or ExecutorState(), self._arm.joint_names
        with suppress(ValueError):
            return float(np.abs(pick_joints(state.joint_names, state.positions, names) - self._poses[Step.HOME]).max())
        return math.nan

    def _report(self) -> None:
        steady_ns = time.monotonic_ns()
        fault, warning, report = self._fault(steady_ns), self._watch.warning(steady_ns), self._watch.report
        states, offset_ms = self._driver.controllers or {}, self._driver.clock.offset_ms
        session = self._session
        level = ERROR if fault or session.outcome else WARN if warning else OK
        message = session.progress if session.step else fault or session.outcome or warning or "fit to move"
        values: dict[str, object] = {
            "fault": fault, "doing": session.progress if session.step else "",
            "failed": session.outcome, "ended": self._ends,
            "mode": report.mode.name if report else "", "errors": " ".join(report.errors) if report else "",
            "last_motion_errors": " ".join(report.last_motion_errors) if report else "",
            "success_rate": report.success_rate if report else math.nan, "distribution": self._distribution.name,
            "ready": self._ready, "controller": states.get(self._config.controller, "unknown"),
            "clock_offset_ms": math.nan if offset_ms is None else offset_ms,
            "payload_kg": report.payload.mass_kg if report else math.nan, "from_home_rad": self._from_home_rad(),
        }  # fmt: skip
        now_ns = int(self.get_clock().now().nanoseconds)
        self._diagnostics.publish(diagnostics_msg("arm_session", level, message, values, now_ns))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node. Exit status 2: a parameter is wrong, or franka_msgs or controller_manager_msgs is missing."""
    return run_node(ArmSessionNode, args)


if __name__ == "__main__":
    sys.exit(main())
