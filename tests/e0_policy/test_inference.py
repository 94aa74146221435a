from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from e0_policy import diffusion
from e0_policy.action_tokenizer import ActionTokenizer
from e0_policy.checkpoint import Checkpoint, save_checkpoint
from e0_policy.embodiment import load_embodiment
from e0_policy.engine import Engine
from e0_policy.fast_path import FastPath, Shape
from e0_policy.fused import Entry
from e0_policy.inference import E0Policy, InferenceError, load_policy, resample
from e0_policy.normalization import NormalizationError
from e0_policy.policy import Plan, Policy
from e0_policy.text_tokenizer import TextTokenError
from e0_policy.transforms import TransformError
from e0_policy.types import Observation, Representation
from tests.e0_policy.tiny import (
    PERIOD,
    SIZES,
    tiny_checkpoint,
    tiny_config,
    tiny_model,
    tiny_step_checkpoint,
    transform,
)

ARM = load_embodiment("panda")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny"))


def observation(**changes: Any) -> Observation:
    rng = np.random.default_rng(0)
    views = {name: rng.integers(0, 256, (48, 64, 3)).astype(np.uint8) for name in ("base", "wrist")}
    values: dict[str, Any] = {
        "stamp_ns": 10 * PERIOD,
        "views": views,
        "joint_positions": ARM.home,
        "gripper_opening": 1.0,
        "instruction": "pick up the cube",
        "embodiment": "panda",
        "joint_names": ARM.joint_names,
    }
    return Observation(**{**values, **changes})


def plan_at(t0: int, rows: int, until: int) -> Plan:
    steps = np.linspace(0.0, 0.1, rows)[:, None] * np.ones(7)
    return Plan(np.hstack([ARM.home + steps, np.full((rows, 1), 0.25)]), t0, PERIOD, until)


def test_rows_are_absolute_and_near_the_arm(folder: str) -> None:
    policy: Policy = load_policy(folder, "cpu")
    out = policy.infer(observation(), None)
    assert out is not None and out.rows.shape == (4, 8) and out.period_ns == PERIOD
    assert (np.abs(out.rows[:, :7] - ARM.home) <= 0.2).all()
    assert ((out.rows[:, 7] >= 0.0) & (out.rows[:, 7] <= 1.0)).all()
    assert out.uncertainty is not None and out.uncertainty.shape == (4,) and out.uncertainty.dtype == np.float32
    assert (policy.embodiment, policy.execution_horizon) == ("panda", 2)
    assert len(policy.checkpoint) == 16


def test_fast_and_eager_answer_the_same(folder: str) -> None:
    for settings in ({}, {"samples": 4, "steps": 3}, {"noise": "redraw"}):
        outs = [
            load_policy(folder, "cpu", engine=engine, **settings).infer(
                observation(), plan_at(9 * PERIOD, 4, 11 * PERIOD)
            )
            for engine in ("fast", "eager")
        ]
        np.testing.assert_allclose(outs[0].rows, outs[1].rows)


def test_a_camera_that_is_known_to_stand_elsewhere_is_told_to_the_network(folder: str) -> None:
    """Equation 9: f_proj of the offset is added to the image tokens, in both engines."""
    moved = observation(view_offsets={"base": np.array([0.0, 0.2, -0.1])})
    for engine in ("fast", "eager"):
        policy = load_policy(folder, "cpu", engine=engine)
        with torch.no_grad():
            policy._model.offset_proj.weight.fill_(3.0)
        if policy._engine is not None:
            policy._engine = Engine(policy._model, policy._sampler)
        still, told = (policy.infer(o, None) for o in (observation(), moved) if policy.reset() is None)
        assert np.abs(told.uncertainty - still.uncertainty).max() > 1e-4
    with pytest.raises(InferenceError, match="three finite numbers"):
        policy.infer(observation(view_offsets={"base": np.full(3, np.nan)}), None)


def test_an_episode_repeats_bit_for_bit(folder: str) -> None:
    policy = load_policy(folder, "cpu", seed=5)
    first = [policy.infer(observation(), None) for _ in range(3)]
    assert [out.seed for out in first] == [5, 6, 7]
    assert not np.array_equal(first[0].rows, first[1].rows)
    policy.reset()
    again = [policy.infer(observation(), None) for _ in range(3)]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)


@pytest.mark.parametrize("engine", ["fast", "eager"])
def test_noise_is_drawn_and_projected_ahead_of_the_observation(
    folder: str, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Once per call, never within it, again after a reset; and the same noise as without preparing."""
    settings: dict[str, Any] = {"engine": engine, "noise": "redraw", "sampling": "sampled"}
    plain, policy, made = (*(load_policy(folder, "cpu", **settings) for _ in range(2)), Counter[str]())
    project, draw = Entry.project, diffusion.draw_noise

    def counted_project(entry: Entry, eps: torch.Tensor) -> torch.Tensor:
        made["projected"] += 1
        return project(entry, eps)

    def counted_draw(*given: Any) -> diffusion.NoiseDraw:
        made["drawn"] += 1
        return draw(*given)

    wanted = [plain.infer(observation(), None) for _ in range(3)]
    monkeypatch.setattr(Entry, "project", counted_project)
    monkeypatch.setattr(diffusion, "draw_noise", counted_draw)
    for again in range(2):
        policy.reset()
        for call, want in enumerate(wanted):
            policy.prepare()
            policy.prepare()
            before = made.copy()
            assert before["drawn"] == 3 * again + call + 1
            assert before["projected"] == (before["drawn"] if engine == "fast" else 0)
            got = policy.infer(observation(), None)
            assert made == before
            assert got.seed == want.seed
            np.testing.assert_array_equal(got.rows, want.rows)


def test_all_that_an_episode_needs_is_recorded_while_none_runs(folder: str) -> None:
    """A graph is recorded per instruction, without and with committed rows: both with the first plan."""
    policy, recorded = load_policy(folder, "cpu"), 0

    def capture(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        nonlocal recorded
        recorded += 1
        return lambda: None, run()

    policy._engine = Engine(policy._model, policy._sampler, capture)
    policy.reset()  # noise for this engine
    policy.warm_up()
    assert recorded == 2
    plan = plan_at(9 * PERIOD, 8, 11 * PERIOD)
    for expected, instruction in (
        (4, "pick up the cube"),
        (6, "move every joint to its mark"),
        (6, "go around the post"),
    ):
        policy.reset()
        policy.infer(observation(instruction=instruction), None)
        assert recorded == expected
        policy.infer(observation(instruction=instruction), plan)
        assert recorded == expected, "an episode waits for no recording"
    policy.infer(observation(instruction="target"), plan)
    assert recorded == 7, "what moves waits for what it needs alone"


def test_warming_up_runs_with_and_without_committed_rows(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = FastPath.run, []

    def watched(path: FastPath, shape: Shape, *given: Any) -> diffusion.Sample:
        seen.append(shape.committed)
        return run(path, shape, *given)

    monkeypatch.setattr(FastPath, "run", watched)
    load_policy(folder, "cpu")
    assert seen == [False, True]


def test_committed_rows_come_out_unchanged(folder: str) -> None:
    """On the plan's own grid and between its rows; the last column holds."""
    policy = load_policy(folder, "cpu")
    plan = plan_at(9 * PERIOD, 8, 11 * PERIOD)
    out = policy.infer(observation(), plan)
    np.testing.assert_array_equal(out.rows[:2], plan.rows[1:3])
    assert (out.uncertainty[:2] == 0).all() and (out.uncertainty[2:] > 0).all()
    off = policy.infer(observation(stamp_ns=10 * PERIOD + PERIOD // 2), plan)
    np.testing.assert_allclose(off.rows[0, :7], (plan.rows[1] + plan.rows[2])[:7] / 2)
    assert off.rows[0, 7] == 0.25


def test_the_row_of_the_observations_own_time_is_kept_whatever_is_committed(folder: str) -> None:
    """What the arm is told to be at by now cannot be changed; only what follows is new."""
    plan = plan_at(9 * PERIOD, 8, 0)
    out = load_policy(folder, "cpu").infer(observation(), plan)
    np.testing.assert_array_equal(out.rows[0], plan.rows[1])
    assert out.uncertainty[0] == 0 and out.uncertainty[1] > 0


@pytest.mark.parametrize(("most", "until", "not_kept"), [(3, 12, 0), (3, 13, 1), (0, 0, 1), (0, 11, 2)])
def test_committed_rows_beyond_what_was_trained_are_counted(
    tmp_path: Path, most: int, until: int, not_kept: int
) -> None:
    """A policy that was trained without committed rows keeps not even the one of the observation's time."""
    model = tiny_model(**{**SIZES, "committed_max": most})
    made = Checkpoint(model.config, transform().to_json(), "panda", PERIOD, 2)
    save_checkpoint(tmp_path / "own", model.state_dict(), made)
    out = load_policy(str(tmp_path / "own"), "cpu").infer(observation(), plan_at(9 * PERIOD, 8, until * PERIOD))
    assert out.rows_not_kept == not_kept


def test_rows_of_a_benchmark_are_what_the_network_says_and_only_committed_ones_are_kept(tmp_path: Path) -> None:
    """The row of the observation's own time is still to be taken, so a new plan may change it."""
    policy = load_policy(str(tiny_step_checkpoint(tmp_path / "steps")), "cpu")
    assert (policy._model.columns, policy._model.config.action_dim) == (7, 8)
    out = policy.infer(observation(), None)
    assert out.representation is Representation.EE_DELTA_STEP and out.rows.shape == (4, 7)
    assert (np.abs(out.rows[:, :6]) <= 1).all() and ((out.rows[:, 6] >= 0) & (out.rows[:, 6] <= 1)).all()
    plan = Plan(np.full((8, 7), 0.25), 9 * PERIOD, PERIOD, 0)
    for until, kept in ((0, 0), (9 * PERIOD, 0), (10 * PERIOD, 1), (11 * PERIOD, 2)):
        answer = policy.infer(observation(), replace(plan, committed_until_ns=until))
        assert [bool((row == 0.25).all()) for row in answer.rows[:3]] == [i < kept for i in range(3)], until
        assert (answer.uncertainty[:kept] == 0).all() and (answer.uncertainty[kept:] > 0).all()


def test_committed_rows_are_bounded_by_training(folder: str) -> None:
    """The model knows clean prefixes of up to three rows; a fourth is predicted."""
    plan = plan_at(10 * PERIOD, 20, 40 * PERIOD)
    out = load_policy(folder, "cpu").infer(observation(), plan)
    np.testing.assert_array_equal(out.rows[:3], plan.rows[:3])
    assert out.uncertainty[3] > 0


@pytest.mark.parametrize(
    ("plan", "rows"),
    [(plan_at(12 * PERIOD, 4, 0), 0), (plan_at(5 * PERIOD, 4, 0), 0), (plan_at(8 * PERIOD, 4, 0), 2)],
    ids=["begins later", "over", "ends within"],
)
def test_a_plan_is_used_as_far_as_it_reaches(plan: Plan, rows: int) -> None:
    assert len(resample(plan, 10 * PERIOD + np.arange(4) * PERIOD)) == rows


def test_run_time_settings(folder: str) -> None:
    policy = load_policy(folder, "cpu", steps=1, samples=2, execution_horizon=3, horizon=3)
    assert policy.execution_horizon == 3
    assert policy.infer(observation(), None).rows.shape == (3, 8)
    assert load_policy(folder, "cpu", dtype="bfloat16").infer(observation(), None).rows.shape == (4, 8)


def without_wrist() -> dict[str, Any]:
    return {"base": observation().views["base"]}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"embodiment": "fr3"}, InferenceError, "of 'fr3'; this policy was trained on 'panda'"),
        ({"joint_names": ("a",) * 7}, InferenceError, "joints are .*panda_joint1"),
        ({"views": without_wrist()}, InferenceError, "'wrist' is missing; got base, needed base, wrist"),
        ({"joint_positions": np.zeros(6)}, InferenceError, r"shape \(6,\)"),
        ({"joint_positions": np.full(7, np.nan)}, NormalizationError, "panda_joint1 is nan"),
        ({"gripper_opening": float("inf")}, NormalizationError, "gripper is inf"),
        ({"instruction": "the cube " * 20}, TextTokenError, "the model takes 12"),
        (
            {"views": {"base": np.zeros((48, 64), np.uint8), "wrist": np.zeros((48, 64, 3), np.uint8)}},
            TransformError,
            r"'base' is uint8 \(48, 64\)",
        ),
        (
            {"views": {"base": np.zeros((48, 64, 3), np.float32), "wrist": np.zeros((48, 64, 3), np.uint8)}},
            TransformError,
            "'base' is float32",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: str, changes: dict[str, Any], error: type[ValueError], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_policy(folder, "cpu").infer(observation(**changes), None)


def test_mean_decoding_stays_near_the_bins(folder: str) -> None:
    rows, fine = (load_policy(folder, "cpu", decode=d).infer(observation(), None).rows for d in ("token", "mean"))
    bin_rad = 0.4 / 64
    assert not np.array_equal(rows, fine) and (np.abs(rows - fine)[:, :7] <= bin_rad * 1.01).all()


def test_expectation_decoding_lies_between_the_bins(folder: str) -> None:
    """A random network doubts much, so the expectation is far from its best bin, yet inside the range of all bins."""
    policies = [load_policy(folder, "cpu", decode="expectation", engine=engine) for engine in ("fast", "eager")]
    fast, eager = (policy.infer(observation(), None).rows for policy in policies)
    np.testing.assert_allclose(fast, eager, atol=1e-4)
    best = load_policy(folder, "cpu").infer(observation(), None).rows
    assert np.abs(fast - best)[:, :7].max() > 0.4 / 64
    assert (np.abs(fast[:, :7] - observation().joint_positions) < 0.2).all()


def test_a_missing_view_can_be_allowed(folder: str) -> None:
    policy = load_policy(folder, "cpu", missing_views=True)
    alone = policy.infer(observation(views=without_wrist()), None)
    policy.reset()
    black = {**without_wrist(), "wrist": np.zeros((48, 64, 3), np.uint8)}
    assert not np.array_equal(alone.rows, policy.infer(observation(views=black), None).rows)
    with pytest.raises(TransformError, match="views are top"):
        policy.infer(observation(views={"top": black["base"]}), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepps": 3}, "unknown setting 'stepps'; allowed are .*steps"),
        ({"steps": 0}, "steps is 0"),
        ({"engine": "turbo"}, "'turbo'; allowed are fast, eager"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"execution_horizon": 5}, "is 5; this model predicts 4 rows"),
    ],
)
def test_wrong_settings_are_named(folder: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_policy(folder, "cpu", **settings)


def test_statistics_of_another_model_are_refused(tmp_path: Path) -> None:
    model = tiny_model(**SIZES)
    other = replace(transform(), tokenizer=ActionTokenizer(32))
    save_checkpoint(tmp_path / "odd", model.state_dict(), Checkpoint(model.config, other.to_json(), "panda", PERIOD, 2))
    with pytest.raises(ValueError, match="bins of the transform is 32; the model's is 64"):
        load_policy(str(tmp_path / "odd"), "cpu")


def test_weights_that_are_not_finite_never_become_a_plan(tmp_path: Path) -> None:
    """Argmax of NaN is a legal token; the policy must not act on it."""
    model = tiny_model(**SIZES)
    model.action_out.bias.data[3] = float("nan")
    made = Checkpoint(model.config, transform().to_json(), "panda", PERIOD, 2)
    save_checkpoint(tmp_path / "nan", model.state_dict(), made)
    with pytest.raises(InferenceError, match="not finite"):
        load_policy(str(tmp_path / "nan"), "cpu")


def test_the_release_averages_both_heads() -> None:
    """The hybrid runs eagerly whatever the engine, and its rows are half bins, half flow."""
    sizes = {**SIZES, "hybrid_continuous": True, "bin_decode": "lower"}
    model = tiny_model(**sizes)
    from e0_policy.diffusion import Sample, SamplerSettings
    from e0_policy.inference import InferenceSettings

    made = Checkpoint(
        tiny_config(**sizes), transform(tokenizer=ActionTokenizer(64, "lower")).to_json(), "panda", PERIOD, 2
    )
    policy = E0Policy(model, made, SamplerSettings.of(model.config), InferenceSettings())
    proprioception = np.append(ARM.home, 1.0)
    tokens, flow = torch.full((1, 4, 8), 32), torch.full((1, 4, 8), 0.5)
    rows = policy._rows(Sample(tokens, torch.zeros(1, 4), flow), proprioception)
    np.testing.assert_allclose(rows[:, :7], np.tile(ARM.home + 0.25 * 0.2, (4, 1)))
    for token, beyond in ((0, -1.5), (63, 1.5)):
        sample = Sample(torch.full((1, 4, 8), token), torch.zeros(1, 4), torch.full((1, 4, 8), beyond))
        assert np.abs(sample.values(ActionTokenizer(64, "lower"))).max() == 1.0
    assert policy.infer(observation(), None).rows.shape == (4, 8)
