"""An arm in a scene, moved by its controller's rules: what the bridge plays between two control steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from e0_policy.embodiment import load_embodiment
from e0_policy.types import FloatArray
from sim.adapter import Scene, SimAdapter
from sim.controllers import JointImpedanceController, JointTrajectoryController, Setpoints, Trajectory
from sim.disturbance import Disturbance
from sim.judge import NOT_FINITE, PERIOD_NS, REFLEXES, Judge, Violation


@dataclass(frozen=True)
class JointSample:
    """Joint state at an instant of ROS time: rad, rad/s, Nm, each `(joints,)`."""

    stamp_ns: int
    positions: FloatArray
    velocities: FloatArray
    efforts: FloatArray


@dataclass(frozen=True)
class Target:
    """A message to the impedance controller."""

    stamp_ns: int
    positions: FloatArray


@dataclass
class Played:
    """What happened while time advanced: joint samples, refused commands, violations, errors that stopped the arm."""

    samples: list[JointSample] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Rig:
    """Advances an adapter along ROS time, with one of the stock controllers, and the judge if wanted.

    Commands are queued with the time of their sending and act from there on, even if the physics is behind. The
    set-point of a physics step is the controller's at the step's end, as ros2_control sends the next cycle's. A
    disturbance pushes the arm off these set-points; the judge, who sees what was commanded, does not know of it.

    With `reflexes` the first set-point that Franka's control refuses is not played: the arm stands at the one before,
    as `halt` leaves it, and `Played.errors` has Franka's names for that instant. Counts of the judge are the same.

    Attributes:
        desired: the latest set-point: rad and rad/s, each `(joints,)`.

    """

    def __init__(
        self,
        adapter: SimAdapter,
        controller: str,
        judged: bool,
        now_ns: int,
        disturbance: Disturbance | None = None,
        reflexes: bool = False,
    ) -> None:
        if adapter.physics_period_ns % PERIOD_NS or adapter.control_period_ns % adapter.physics_period_ns:
            raise ValueError(
                f"physics period {adapter.physics_period_ns} ns, control period {adapter.control_period_ns} ns: "
                "the first must be whole milliseconds and divide the second"
            )
        self.adapter = adapter
        self.arm = load_embodiment(adapter.embodiment)
        self.now_ns = self._reset_ns = now_ns
        self._disturbance, self._reflexes = disturbance, reflexes
        self.gripper_target = adapter.gripper_opening()
        positions = adapter.joint_state()[0]
        self._trajectory = JointTrajectoryController(self.arm.joint_names, positions)
        self._impedance = JointImpedanceController(positions, now_ns) if controller == "impedance" else None
        judged = judged or reflexes
        self.judge = Judge(self.arm, positions, derivatives=self._impedance is None) if judged else None
        self.desired = positions, np.zeros_like(positions)
        self.fault = ""
        self._queue: deque[tuple[int, Trajectory | Target]] = deque()

    def reset(self, task: str, seed: int, now_ns: int) -> Scene:
        """Build a scene; the controller holds where the arm is and time goes on from `now_ns`.

        Raises:
            ValueError: unknown task; nothing has changed then.

        """
        scene = self.adapter.reset(task, seed)
        self.now_ns = self._reset_ns = now_ns
        if self._disturbance:
            self._disturbance.restart(seed)
        self.fault = ""
        self.gripper_target = self.adapter.gripper_opening()
        self._stand(self.adapter.joint_state()[0])
        return scene

    def halt(self, reason: str) -> None:
        """The arm stops on its own, as after a reflex: it stands, and refuses commands until `go_on`."""
        self.fault = reason
        self._stand(self.adapter.joint_state()[0])

    def go_on(self) -> None:
        """The controller is active again and holds where the arm is."""
        self.fault = ""
        self._stand(self.adapter.joint_state()[0])

    def _stand(self, positions: FloatArray) -> None:
        self._queue.clear()
        self.desired = positions, np.zeros_like(positions)
        self._trajectory.hold(positions)
        if self._impedance:
            self._impedance.restart(positions, self.now_ns)
        if self.judge:
            self.judge.restart(positions)

    def command(self, command: Trajectory | Target, sent_ns: int) -> None:
        """Queue a command for the time of its sending, or for now if that is past."""
        self._queue.append((sent_ns, command))

    def sample(self) -> JointSample:
        """The joint state now."""
        return JointSample(self.now_ns, *self.adapter.joint_state())

    def advance(self, until_ns: int) -> Played:
        """Run every physics step that ends by `until_ns`."""
        return self._run(until_ns, self._play)

    def skip(self, until_ns: int) -> Played:
        """Let time and the controller go on while the arm stands still: the physics could not keep up."""
        return self._run(until_ns, self._pass)

    def _run(self, until_ns: int, move: Callable[[int, Played], None]) -> Played:
        played, period_ns = Played(), self.adapter.physics_period_ns
        while (left := (until_ns - self.now_ns) // period_ns) > 0:
            while self._queue and self._queue[0][0] <= self.now_ns:
                self._take(self._queue.popleft()[1], played)
            if self._queue:
                left = min(left, -((self.now_ns - self._queue[0][0]) // period_ns))
            move(left, played)
        return played

    def _play(self, steps: int, played: Played) -> None:
        every = self.adapter.physics_period_ns // PERIOD_NS
        setpoints = self._sample_controller(steps * every, played)
        for position, velocity in zip(
            setpoints.positions[every - 1 :: every], setpoints.velocities[every - 1 :: every], strict=True
        ):
            self.adapter.step(*self._disturbed(position, velocity), self.gripper_target)
            self.now_ns += self.adapter.physics_period_ns
            played.samples.append(self.sample())

    def _disturbed(self, position: FloatArray, velocity: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self._disturbance is None:
            return position, velocity
        offset, rate = self._disturbance.at((self.now_ns - self._reset_ns) / 1e9)
        return position + offset, velocity + rate

    def _pass(self, steps: int, played: Played) -> None:
        self._sample_controller(steps * (self.adapter.physics_period_ns // PERIOD_NS), played)
        self.now_ns += steps * self.adapter.physics_period_ns

    def _sample_controller(self, count: int, played: Played) -> Setpoints:
        """The next `count` set-points, 1 ms apart; one that is not finite stops the hardware, as in franka_ros2."""
        times_ns = self.now_ns + PERIOD_NS * np.arange(1, count + 1)
        controller = self._impedance or self._trajectory
        setpoints = controller.sample(times_ns)
        found = self.judge.check(times_ns, setpoints.positions) if self.judge else []
        played.violations += found
        if not np.isfinite(setpoints.positions).all():
            self.fault = "a set-point was not finite: the hardware stopped, the arm holds; reset"
            played.refused.append(self.fault)
            played.errors.append(NOT_FINITE)
            positions = self.adapter.joint_state()[0]
            self._trajectory.hold(positions)
            if self._impedance:
                self._impedance.restart(positions, self.now_ns)
            setpoints = controller.sample(times_ns)
        elif self._reflexes and (stops := [v for v in found if v.error in REFLEXES]):
            setpoints = self._reflex(setpoints, times_ns, stops, played)
        self.desired = setpoints.positions[-1], setpoints.velocities[-1]
        return setpoints

    def _reflex(
        self, setpoints: Setpoints, times_ns: NDArray[np.int64], stops: list[Violation], played: Played
    ) -> Setpoints:
        """The set-points up to the first illegal one; from there on the arm stands at the one before."""
        first_ns = min(stop.time_ns for stop in stops)
        errors = list(dict.fromkeys(stop.error for stop in stops if stop.time_ns == first_ns))
        played.errors += errors
        self.fault = f"reflex: {', '.join(errors)}"
        row = int(np.searchsorted(times_ns, first_ns))
        stand = setpoints.positions[row - 1] if row else self.desired[0]
        self._stand(stand)
        legal = np.arange(len(times_ns))[:, None] < row
        return Setpoints(np.where(legal, setpoints.positions, stand), np.where(legal, setpoints.velocities, 0.0))

    def _take(self, command: Trajectory | Target, played: Played) -> None:
        positions, velocities, _ = self.adapter.joint_state()
        if self.fault:
            reason = self.fault
        elif isinstance(command, Target):
            reason = self._impedance.accept(command.positions, command.stamp_ns, self.now_ns) if self._impedance else ""
        else:
            reason = self._trajectory.accept(command, self.now_ns, positions, velocities)
            if self.judge:
                played.violations += self.judge.names(command.joint_names, self.now_ns)
        if reason:
            played.refused.append(reason)
