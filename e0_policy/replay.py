"""A policy that plays recorded rows again, from the first observation after a reset on."""

from __future__ import annotations

import numpy as np

from e0_policy.policy import Plan, PolicyOutput
from e0_policy.types import FloatArray, Observation


class ReplayPolicy:
    """Answers every observation with the rows that follow its stamp.

    Row i was in force i periods after the recording's first row; the first observation after a reset takes the place
    of that first row. Between two rows joints (and whatever else is not the last column) are linear and the gripper,
    the last column, keeps the earlier row's opening. On the grid, rows come out bit for bit.

    Args:
        rows: `(rows, columns)` absolute, the gripper opening last.
        period_ns: time between rows.
        embodiment: whose rows they are.
        execution_horizon: rows to run before the next plan.
        prediction_horizon: rows per plan.
        name: what is replayed, for the records.

    """

    def __init__(
        self,
        rows: FloatArray,
        period_ns: int,
        embodiment: str,
        execution_horizon: int = 8,
        prediction_horizon: int = 16,
        name: str = "",
    ) -> None:
        rows = np.asarray(rows, dtype=np.float64)
        if rows.ndim != 2 or len(rows) < 1 or rows.shape[1] < 2 or not np.isfinite(rows).all():
            raise ValueError(f"replay rows have shape {rows.shape}; finite (rows, columns) are needed, columns >= 2")
        if period_ns <= 0:
            raise ValueError(f"replay period_ns is {period_ns}; it must be above 0")
        if not 1 <= execution_horizon <= prediction_horizon <= 1024:
            raise ValueError(
                f"execution_horizon is {execution_horizon} and prediction_horizon {prediction_horizon}; "
                "allowed is 1 <= execution_horizon <= prediction_horizon <= 1024"
            )
        self._rows, self._period_ns = rows, period_ns
        self._embodiment, self._name = embodiment, name
        self._execution, self._prediction = execution_horizon, prediction_horizon
        self._start_ns: int | None = None

    @property
    def embodiment(self) -> str:
        """Embodiment of the recording."""
        return self._embodiment

    @property
    def checkpoint(self) -> str:
        """What is replayed."""
        return self._name

    @property
    def execution_horizon(self) -> int:
        """Rows meant to run before the next plan."""
        return self._execution

    def reset(self) -> None:
        """Begin again with the next observation."""
        self._start_ns = None

    def infer(self, observation: Observation, plan: Plan | None) -> PolicyOutput | None:
        """Rows from the observation's stamp on; None behind the last row. Images and `plan` are not looked at."""
        if self._start_ns is None:
            self._start_ns = observation.stamp_ns
        elapsed_ns = observation.stamp_ns - self._start_ns
        first, offset_ns = divmod(elapsed_ns, self._period_ns)
        if first < 0 or first >= len(self._rows):
            return None
        rows = self._rows[first : first + self._prediction].copy()
        if offset_ns:
            following = self._rows[first + 1 : first + 1 + len(rows)]
            share = offset_ns / self._period_ns
            rows[: len(following), :-1] += share * (following[:, :-1] - rows[: len(following), :-1])
        return PolicyOutput(rows, self._period_ns)
