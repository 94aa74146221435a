"""A scene moved by rows of its benchmark's own controller: what the bridge plays between two control steps."""

from __future__ import annotations

from dataclasses import dataclass

from e0_policy.embodiment import load_embodiment
from e0_policy.types import FloatArray
from sim.adapter import RowAdapter, Scene
from sim.rig import JointSample, Played


@dataclass(frozen=True)
class Row:
    """The row of the control step at `stamp_ns`, `(columns,)`; None: nobody moves the arm in it."""

    stamp_ns: int
    values: FloatArray | None


class StepRig:
    """Advances a stepped adapter along ROS time, in the place of `sim.rig.Rig`.

    A row serves one control step; a step without one, or with one that the adapter refuses, is a step in which the arm
    stands. There are no set-points, so there is nothing to judge.
    """

    judge = None
    fault = ""

    def __init__(self, adapter: RowAdapter, now_ns: int) -> None:
        self.adapter, self.now_ns = adapter, now_ns
        self.arm = load_embodiment(adapter.embodiment)
        self.gripper_target = adapter.gripper_opening()
        self._row: Row | None = None

    def reset(self, task: str, seed: int, now_ns: int) -> Scene:
        """Build a scene; time goes on from `now_ns`.

        Raises:
            ValueError: unknown task or seed; nothing has changed then.

        """
        scene = self.adapter.reset(task, seed)
        self.now_ns, self._row = now_ns, None
        self.gripper_target = self.adapter.gripper_opening()
        return scene

    def command(self, row: Row, sent_ns: int) -> None:
        """Take the row of the step that begins now."""
        self._row = row

    def sample(self) -> JointSample:
        """The joint state now."""
        return JointSample(self.now_ns, *self.adapter.joint_state())

    def advance(self, until_ns: int) -> Played:
        """Run every control step that ends by `until_ns`; only the first one can have a row."""
        played, period_ns = Played(), self.adapter.control_period_ns
        while until_ns - self.now_ns >= period_ns:
            row, self._row = self._row, None
            if reason := self._step(row):
                played.refused.append(reason)
            self.now_ns += period_ns
            played.samples.append(self.sample())
        return played

    def _step(self, row: Row | None) -> str:
        """One control step; why the row was refused, or empty."""
        refused = ""
        if row is not None and row.values is not None:
            if row.stamp_ns == self.now_ns:
                try:
                    self.adapter.act(row.values)
                except ValueError as error:
                    refused = str(error)
                else:
                    return ""
            else:
                refused = f"a row of {row.stamp_ns} ns came to the step of {self.now_ns} ns"
        self.adapter.stand()
        return refused
