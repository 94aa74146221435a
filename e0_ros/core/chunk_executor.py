"""Turns plans from many sources into one legal command stream: anchoring, hand-over, following, braking.

executor = ChunkExecutor(ExecutorConfig(embodiment="panda", lockstep=True))
executor.observe_joints(0, names, home, zeros)   # a joint state measured at 0
executor.arm(0)                                  # None: armed (else a Refusal), the reference is `home`
executor.offer(chunk, 50 * MS)                   # None: accepted (else a Refusal that says why)
tick = executor.tick(50 * MS)
tick.command.sample(60 * MS)                     # what the controller follows at 60 ms, until the next tick
tick.gripper                                     # 1.0, or None while it does not change
tick.status.mode, tick.status.reason             # Mode.RUNNING, "follows policy (session a)"
executor.tick(100 * MS).command                  # goes on from where the last command is at 100 ms
# no further chunk: the last row is held, then Mode.HOLD, "plan exhausted ..."; every command ends at rest anyway

The reference is always the last command sent, sampled at the present. A tick plans from where that command will be at
`now + lead`; whatever was delayed or lost before, the motion goes on from there. No time is ever caught up.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.types import ActionChunk, FloatArray, Representation
from e0_ros.config import ConfigError
from e0_ros.core.admission import Refusal
from e0_ros.core.command import Command
from e0_ros.core.executor import Executor
from e0_ros.core.executor_types import ExecutorConfig, Mode, Status, Tick
from e0_ros.core.gripper import Gripper, opening_in_force
from e0_ros.core.handover import Committed, strategy_named
from e0_ros.core.inverse_kinematics import joint_rows
from e0_ros.core.lead import Lead
from e0_ros.core.limiter import STEP_NS, Limits, Target, plan
from e0_ros.core.message_clock import MessageClock
from e0_ros.core.reference import HandOver, RowCurve
from e0_ros.core.workspace import Workspace, narrowed, plan_inside

_MS = 1_000_000
_KEEP_REFERENCE_RAD = 0.02
_LONGEST_STALL_NS = 5_000 * _MS
_HURRY_NS = 4 * _MS  # between two commands, however fast a hand is read


class ChunkExecutor(Executor):
    """The state machine with a reference: at rest it brakes along a legal path, then holds or sends nothing."""

    def __init__(self, config: ExecutorConfig) -> None:
        super().__init__(config)
        self._workspace = _workspace(self.arm_model, config)
        self._limits = Limits.of(self.arm_model, config.velocity_scale, config.acceleration_scale, config.jerk_scale)
        self._lead = Lead(*(int(ms * _MS) for ms in (config.lead_ms, config.stop_lead_ms, config.max_lead_ms)))
        self._command: Command | None = None
        self._before: Command | None = None
        self._committed_ns = 0
        self._messages = MessageClock(config.command_rate_hz, _HURRY_NS)
        self._brake_due = False
        self._settling = False
        self._curve: RowCurve | None = None
        self._target: Target | None = None
        self._joined: tuple[int, Command, RowCurve, Target] | None = None
        blend = int(config.blend_ms * _MS), self._limits.velocity, self._limits.acceleration
        self._hands, self._plans = Committed(*blend), strategy_named(config.hand_over, *blend)
        self._gripper, self._opening = Gripper(config.gripper_hysteresis), math.nan
        self._limited = 0

    @property
    def transport_ns(self) -> int:
        """How long a message may take to the controller, by what is known of delays."""
        return self._lead.transport_ns

    # -- inputs ----------------------------------------------------------------------------------------------------

    def observe_delay(self, delay_ns: int, now_ns: int) -> None:
        """Take the time that a message took through the transport; it lengthens the lead if need be."""
        self._lead.observe(delay_ns, now_ns)

    def offer(self, chunk: ActionChunk, now_ns: int) -> Refusal | None:
        """Take a chunk: None if it was accepted, else why not. A wrong chunk of the arm's owner leads to a hold."""
        self._settle(now_ns)
        verdict = self._admitted(chunk, now_ns)
        if isinstance(verdict, Refusal):
            return verdict
        if trouble := self._joint_trouble(now_ns):
            return self._refuse(trouble)
        meant = self._in_joints(verdict, now_ns)
        if isinstance(meant, str):
            return self._refuse(meant, fault=True)
        rows = np.clip(meant.rows[:, :-1], self._limits.lower, self._limits.upper)
        self._limited += bool((rows != meant.rows[:, :-1]).any())
        past = max((now_ns - chunk.t0_ns) // chunk.period_ns, 0)
        if leaving := self._outside(rows[past:]):
            return self._refuse(f"leaves the workspace: {leaving}", fault=True)
        accepted = replace(meant, rows=np.column_stack((rows, meant.rows[:, -1])))
        from_ns = self._counts_from_ns(accepted, chunk.t0_ns - self._ahead_ns(chunk))
        if from_ns > now_ns + self._lead_ns:
            self._wait(accepted, from_ns)
        elif refusal := self._engage(accepted, now_ns):
            return refusal
        else:
            self._pending = []  # what waited is older
        self._admission.accept(chunk, now_ns)
        self._join_ahead()
        return None

    def _outside(self, joint_positions: FloatArray) -> str:
        """How the first of positions `(rows, n)` [rad] leaves the workspace, in words; empty if none does."""
        return self._workspace.outside(joint_positions) if self._workspace else ""

    def _in_joints(self, chunk: ActionChunk, now_ns: int) -> ActionChunk | str:
        """The chunk with rows of joints, or why not; poses are solved from where the reference is."""
        if chunk.representation is Representation.JOINT_POSITION or self._command is None:
            return chunk
        start, arm = self._command.sample(now_ns).position, self.arm_model
        rows = joint_rows(arm, start, chunk.rows, chunk.period_ns)
        if isinstance(rows, str):
            return rows
        return replace(chunk, rows=rows, representation=Representation.JOINT_POSITION, joint_names=arm.joint_names)

    # -- requests --------------------------------------------------------------------------------------------------

    def arm(self, now_ns: int, not_before_ns: int = 0) -> Refusal | None:
        """As `Executor.arm`; with `not_before_ns` a scene was put back, and with it what the gripper was told."""
        refusal = super().arm(now_ns, not_before_ns)
        self._opening = math.nan if refusal is None and not_before_ns else self._opening
        return refusal

    def abandon(self, reason: str) -> None:
        """The arm stopped by itself: send nothing more, not even the braking, until it is armed where it then is."""
        super().abandon(reason)
        self._command, self._brake_due = None, False

    def _unfit(self, joints: FloatArray, now_ns: int) -> str:
        if unfit := self._measured.unfit():
            return unfit
        if outside := self._outside(joints[None]):
            return f"{outside}; move the arm inside first"
        moved = self._command if self._mode is not Mode.DISARMED or not self.config.lockstep else None
        if moved and not moved.at_rest(now_ns):
            return "the reference still moves; hold first and arm when it is at rest"
        if moved and not moved.at_rest(self._measured.stamp_ns):
            return "the newest joint state was measured before the reference came to rest"
        return ""

    def _anchor(self, joints: FloatArray, now_ns: int) -> None:
        self._lead.begin()
        keep = self._held_reference(joints, now_ns)
        self._command = Command.rest(joints if keep is None else keep, now_ns)
        self._settling = keep is None
        self._gripper.sent = None
        self._committed_ns, self._now_ns = now_ns + self._lead_ns, max(self._now_ns, now_ns)
        self._messages.begin(now_ns)

    # -- the tick --------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> Tick:
        """Decide what is sent now. Call it regularly; in lock-step once per tick of the bridge."""
        self._notice_jump(now_ns)
        self._now_ns = now_ns
        self._settle(now_ns)
        self._settling = False
        if self._mode in (Mode.ARMED, Mode.RUNNING) and (cause := self._hold_cause(now_ns)):
            self._rest(Mode.HOLD, cause)
            self._latched = bool(self._off_reference())
        self._engage_due(now_ns)
        command = self._move(now_ns)
        opening = None
        if self._mode is Mode.RUNNING and self._chunk:
            opening = self._gripper.update(opening_in_force(self._chunk, now_ns + self._lead_ns))
            self._opening = self._opening if opening is None else opening
        return Tick(command, opening, self.status(now_ns), branch_ns=self._committed_ns)

    def due(self, now_ns: int) -> bool:
        """Whether a tick would send a command now, were there motion to send."""
        return self.config.lockstep or self._messages.due(now_ns) or self._brake_due

    def status(self, now_ns: int) -> Status:
        """The state, with the reference at `now_ns`."""
        motion = self._command or self._measured.state
        return self._status(now_ns, self._planned_ns, motion, self._opening, self._limited)

    @property
    def _planned_ns(self) -> int:
        """Up to when the plan in force cannot be changed any more, in the plan's own time."""
        latency_ns = self._latency_ns if self.config.lockstep else 0
        return self._committed_ns + latency_ns + (self._ahead_ns(self._chunk) if self._chunk else 0)

    def _ahead_ns(self, chunk: ActionChunk) -> int:
        """How much earlier than its times a plan is followed, because the arm lags; a hand's is not."""
        machine = chunk.source in ("policy", "replay", "scripted") and not self.config.lockstep
        return int(self.config.arm_lag_ms * _MS) if machine else 0

    @property
    def _lead_ns(self) -> int:
        return 0 if self.config.lockstep else self._lead.plan_ns

    @property
    def _stop_lead_ns(self) -> int:
        return 0 if self.config.lockstep else self._lead.brake_ns

    def _commit_ns(self, now_ns: int) -> int:
        """From when on this tick's plan acts: on the planning grid, where a plan that goes on repeats the last one."""
        if self._brake_due and self._mode is not Mode.RUNNING:
            return now_ns + self._stop_lead_ns
        commit_ns = now_ns + self._lead_ns
        return commit_ns if self.config.lockstep else -(-commit_ns // STEP_NS) * STEP_NS

    def _move(self, now_ns: int) -> Command | None:
        silent = self._mode is Mode.DISARMED and not self._brake_due
        if self._command is None or silent or not self.due(now_ns):
            self._brake_due = False
            return None
        commit_ns = self._commit_ns(now_ns)
        span_ns = int(self.config.span_ms * _MS)
        self._before, leaving = self._command, ""
        known = self._command.since(now_ns - int(max(self.config.overlap_ms, self.config.joint_max_age_ms) * _MS))
        if self._brake_due or self._mode is Mode.RUNNING:
            target = self._target_from(commit_ns)
            if self._workspace:
                last, space = self._command, self._workspace
                ahead, (leaving,) = plan_inside(self._limits, space, last, target, commit_ns, span_ns)
            else:
                ahead = plan(self._limits, self._command, target, commit_ns, span_ns)
            self._command = known.then(ahead)
        self._committed_ns = commit_ns
        self._brake_due = False
        if leaving:
            self._rest(Mode.HOLD, f"held inside the workspace: {leaving}")
        self._messages.sent(now_ns)
        return self._command.since(now_ns - int(self.config.overlap_ms * _MS)).lasting(commit_ns + span_ns)

    def withdraw(self) -> None:
        """Take back the last tick's command, which was not sent: the one before it is still in force."""
        self._command, self._target, self._brake_due = self._before, None, True

    def _target_from(self, commit_ns: int) -> Target | None:
        """What to follow; a chunk that is new is reached from where the reference is at the commit time."""
        if self._curve is None or self._chunk is None or self._command is None:
            return None
        if self._target is None and self._joined:
            at_ns, motion, curve, target = self._joined
            fits = at_ns == commit_ns and motion is self._command and curve is self._curve
            self._target = target if fits else None
        if self._target is None:
            strategy = self._hands if self._chunk.source == "teleop" else self._plans
            self._target = strategy.join(self._curve, self._command.sample(commit_ns), commit_ns)
        return self._target

    def _join_ahead(self) -> None:
        """Join a new plan where the next tick that sends will, if it comes on time: that tick has less to do then."""
        plan, motion, curve = self._chunk, self._command, self._curve
        if self.config.lockstep or self._target or plan is None or motion is None or curve is None:
            return
        if plan.source != "teleop" and isinstance(self._plans, Committed):  # which remembers nothing
            commit_ns = self._commit_ns(self._messages.expected_ns)
            target = self._plans.join(curve, motion.sample(commit_ns), commit_ns)
            self._joined = commit_ns, motion, curve, target

    def _engage_due(self, now_ns: int) -> None:
        """Hand over to the newest chunk that has waited until the commit time; a refusal of it is only counted."""
        if chunk := self._next(now_ns + self._lead_ns):
            self._engage(chunk, now_ns)

    def _engage(self, chunk: ActionChunk, now_ns: int) -> Refusal | None:
        """Hand over to a chunk that is in force at the commit time; why not, if it cannot be followed from there."""
        if self._command is None:
            return None
        commit_ns, ahead_ns = now_ns + self._lead_ns, self._ahead_ns(chunk)
        if chunk.end_ns + chunk.period_ns <= commit_ns + ahead_ns:
            when = f"when commands act, {self._lead_ns / 1e6:.0f} ms ahead"
            return self._refuse(f"late: its last row is {_age(commit_ns, chunk.end_ns)} old {when}")
        slow_down_ns = int(self.config.slow_down_ms * _MS) if chunk.source == "policy" else 0
        curve = RowCurve(chunk.rows[:, :-1], chunk.t0_ns - ahead_ns, chunk.period_ns, slow_down_ns)
        gap = np.abs(curve(np.array([commit_ns])).position[0] - self._command.sample(commit_ns).position)
        worst = int(gap.argmax())
        if gap[worst] > self.config.max_jump_rad:
            reason = f"{self.arm_model.joint_names[worst]} jumps by {gap[worst]:.3f} rad"
            return self._refuse(f"{reason}; allowed is {self.config.max_jump_rad}", fault=True)
        goes_on = self._chunk and (self._chunk.source, self._chunk.session) == (chunk.source, chunk.session)
        hand = chunk.source == "teleop"
        if not goes_on:
            self._plans.forget()
        if goes_on and isinstance(self._target, HandOver) and (hand or self._target.told_anew_by(curve, commit_ns)):
            self._target = self._target.along(curve)
            if hand:
                self._messages.hurry()
        else:
            self._target = None
        self._curve = curve
        self._run(chunk)
        return None

    # -- causes ----------------------------------------------------------------------------------------------------

    def _notice_jump(self, now_ns: int) -> None:
        """A command means nothing on a clock that jumped: the controller ends the last one, and nothing is added."""
        jump_ns = now_ns - self._now_ns
        forward = jump_ns > _LONGEST_STALL_NS and self._mode is not Mode.DISARMED and self._command is not None
        if jump_ns < 0 or forward:
            way = "forward (or the executor stood still)" if forward else "back"
            self.disarm(f"the clock jumped {way} by {abs(jump_ns) / 1e9:.3f} s")
            self._command, self._brake_due = None, False
            if not forward:
                self._measured.forget()

    def _hold_cause(self, now_ns: int) -> str:
        if trouble := self._joint_trouble(now_ns) or (not self.config.lockstep and self._lead.trouble):
            return trouble
        if self._mode is Mode.RUNNING and self._chunk:
            late_ns = self._messages.late_ns(now_ns)
            if late_ns > self.config.span_ms * _MS and not self.config.lockstep:
                return f"the executor was {late_ns / 1e6:.0f} ms late"
            over_ns = now_ns - self._chunk.end_ns
            if over_ns > self.config.exhausted_ms * _MS + self._chunk.period_ns and not self._pending:
                return f"plan exhausted: its last row is {_age(now_ns, self._chunk.end_ns)} old"
            if not self.config.lockstep:
                return self._admission.silence(now_ns)
        return ""

    def _joint_trouble(self, now_ns: int) -> str:
        return self._measured.trouble(now_ns) or self._off_reference()

    def _off_reference(self) -> str:
        """Which joint does not follow, in words: it stopped on its own, and must not be called away from there."""
        return self._measured.off(self._command, self.config.max_tracking_error_rad)

    def _rest(self, mode: Mode, reason: str) -> None:
        """The braking itself is planned by the next tick, from the last command."""
        self._brake_due = self._command is not None and not self._command.at_rest(self._now_ns + self._stop_lead_ns)
        super()._rest(mode, reason)

    def _forget(self) -> None:
        super()._forget()
        self._curve, self._target = None, None
        self._plans.forget()

    def _held_reference(self, measured: FloatArray, now_ns: int) -> FloatArray | None:
        """The reference, if a controller still holds it and it is close: anchoring there makes no step."""
        held = self._mode is not Mode.DISARMED or self.config.output == "impedance"
        if self._command is None or not held:
            return None
        reference = self._command.sample(now_ns + self._lead_ns).position
        return reference if np.abs(reference - measured).max() <= _KEEP_REFERENCE_RAD else None

    def _settle(self, now_ns: int) -> None:
        """Until the first tick after arming the anchor follows the joints, so that a late joint state counts too."""
        if self._settling and self._measured.position is not None and self._mode is Mode.ARMED:
            arm = self.arm_model
            q = np.clip(self._measured.position, arm.position_lower, arm.position_upper)
            self._command = Command.rest(q, now_ns)


def _workspace(arm: Embodiment, config: ExecutorConfig) -> Workspace | None:
    """What is kept in metres; None for an arm whose kinematics are not known, of which no setting may ask for it."""
    finite = np.isfinite(arm.velocity) & np.isfinite(arm.acceleration) & np.isfinite(arm.jerk)
    if not finite.all():
        joint = arm.joint_names[int(finite.argmin())]
        raise ConfigError(
            f"{joint} of {arm.name} has no finite velocity, acceleration and jerk; nothing can be planned"
        )
    if arm.has_kinematics:
        return Workspace.of(arm, config)
    if asked := narrowed(config):
        raise ConfigError(f"{', '.join(asked)} cannot be kept: the kinematics of {arm.name} are none; leave them out")
    return None


def _age(now_ns: int, then_ns: int) -> str:
    return f"{(now_ns - then_ns) / 1e6:.0f} ms"
