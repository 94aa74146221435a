"""What `e0 ablate` compares: trainings that differ in one thing, and settings of inference to serve each with."""

from __future__ import annotations

from collections.abc import Mapping
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


def heads() -> list[Variant]:
    """Does diffusion earn its steps? E0 against heads of one pass, with the same network, data and steps."""
    found = [Variant("E0", f"N = {n}", "e0", settings={"steps": n}) for n in (1, 2, 4, 10)]
    found += [_one_pass("categorical", sampling, {"sampling": sampling}) for sampling in ("argmax", "sampled")]
    return [*found, _one_pass("l2", "squared error", {}), _one_pass("l1", "absolute error", {})]


def paper() -> list[Variant]:
    """The paper's ablations (appendix B), and the token layout; the base configuration is in every group."""
    found = [_changed("bins", bins, {"model.bins": bins}) for bins in (32, 64, 128, 256, 512, 2048)]
    found += [_changed("alpha", a, {"model.alpha_train": a, "model.alpha_infer": a}) for a in (0.1, 0.5, 1.0)]
    found += [Variant("N", str(n), "base", settings={"steps": n}) for n in (1, 2, 4, 10, 20)]
    for rows in (2, 4, 8, 16, 32):
        changes = {"model.prediction_horizon": rows, "execution_horizon": max(1, rows * 3 // 4)}
        found.append(_changed("horizon", rows, {**changes, "model.committed_max": min(2, rows - 1)}))
    for kind in ("quantile", "mean_std"):
        found.append(_changed("normalization", kind, {"normalization": kind}))
    for layout in ("dim_token", "step_token"):
        found.append(_changed("layout", layout, {"model.token_layout": layout}))
    return found


SUITES = {"heads": heads, "paper": paper}


def _one_pass(head: str, label: str, settings: Mapping[str, Any]) -> Variant:
    group = "categorical" if head == "categorical" else "regression"
    return Variant(group, label, head, {"model.head": head, "model.steps": 1}, {"steps": 1, **settings})


def _changed(group: str, value: object, changes: Mapping[str, Any]) -> Variant:
    return Variant(group, str(value), f"{group}-{value}", changes)
