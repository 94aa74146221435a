"""What `e0 ablate` compares: trainings that differ in one thing, and settings of inference to serve each with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A row of a table.

    Attributes:
        group: the table's part.
        label: the row.
        training: name of what is trained; variants may share it.
        changes: settings of that training by dotted name.
        settings: of inference.

    """

    group: str
    label: str
    training: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def served_as(self) -> tuple[str, str]:
        """Of variants with the same, one is evaluated for all."""
        return self.training, json.dumps(dict(self.settings), sort_keys=True)


def heads() -> list[Variant]:
    """Does diffusion earn its steps? E0 against heads of one pass, with the same network, data and steps."""
    found = [Variant("E0", f"N = {n}", "e0", settings={"steps": n}) for n in (1, 2, 4, 10)]
    found += [_one_pass("categorical", sampling, {"sampling": sampling}) for sampling in ("argmax", "sampled")]
    return [*found, _one_pass("l2", "squared error", {}), _one_pass("l1", "absolute error", {})]


BASE: Mapping[str, Any] = {
    "model.bins": 64,
    "model.alpha_train": 1.0,
    "model.alpha_infer": 1.0,
    "model.prediction_horizon": 8,
    "execution_horizon": 6,
    "model.committed_max": 2,
    "model.token_layout": "dim_token",
    "normalization": "quantile",
    "seed": 0,
}
"""What `paper` varies, as every other row has it."""
STEPS = (1, 10)
"""N with which every training of `paper` is served."""


def paper() -> list[Variant]:
    """The paper's ablations (appendix B), the token layout, and training seeds, by which to judge a difference.

    The base configuration is a row of every group; it is trained once.
    """
    found = [Variant("N", str(n), "base", BASE, {"steps": n}) for n in (1, 2, 4, 10, 20)]
    found += _changed("seed", {seed: {"seed": seed} for seed in (0, 1, 2)})
    found += _changed("alpha", {a: {"model.alpha_train": a, "model.alpha_infer": a} for a in (0.1, 0.5, 1.0)})
    found += _changed("normalization", {kind: {"normalization": kind} for kind in ("quantile", "mean_std")})
    found += _changed("layout", {kind: {"model.token_layout": kind} for kind in ("dim_token", "step_token")})
    found += _changed("bins", {bins: {"model.bins": bins} for bins in (16, 32, 64, 128, 256, 512, 2048)})
    found += _changed("horizon", {rows: _horizon(rows) for rows in (2, 4, 8, 16, 32)})
    return found


SUITES = {"heads": heads, "paper": paper}


def _one_pass(head: str, label: str, settings: Mapping[str, Any]) -> Variant:
    group = "categorical" if head == "categorical" else "regression"
    return Variant(group, label, head, {"model.head": head, "model.steps": 1}, {"steps": 1, **settings})


def _horizon(rows: int) -> dict[str, int]:
    """Three quarters of a plan are run."""
    return {
        "model.prediction_horizon": rows,
        "execution_horizon": max(1, rows * 3 // 4),
        "model.committed_max": min(2, rows - 1),
    }


def _changed(group: str, choices: Mapping[Any, Mapping[str, Any]]) -> Iterator[Variant]:
    for value, changes in choices.items():
        whole = {**BASE, **changes}
        training = "base" if whole == BASE else f"{group}-{value}"
        yield from (Variant(group, f"{value}, N = {n}", training, whole, {"steps": n}) for n in STEPS)
