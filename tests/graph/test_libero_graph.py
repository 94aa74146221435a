"""A robosuite task through the graph as users launch it: rows of OSC_POSE, one per control step, in lock-step."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from e0_policy.lerobot_source import LeRobotSource
from e0_policy.types import Representation
from e0_ros import convert
from e0_ros.conversions import chunk_from_msg, to_ns
from e0_ros.core.bag_reader import Bag
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.core.dataset_episode import convert_bag
from e0_ros.core.step_rows import OSC_POSE
from e0_ros.interfaces import ACTION_CHUNK, IMPEDANCE_TARGET, SIM_STEP, TRAJECTORY
from sim.collect_config import CollectConfig
from sim.collect_episode import take
from sim.eval_rollouts import POLICY, Job
from sim.eval_run import Plan, evaluate
from sim.evaluation import EvalConfig, RolloutRunner, completed
from sim.evaluator import Episode
from sim.runs import over_graph, scripted_directly

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]
DELAYS = Path(__file__).parent / "delays"
TOY = {
    "views": ["base", "wrist"], "image_size": 32, "vision_width": 16, "vision_heads": 2, "vision_mlp": 32, "width": 16,
    "mlp": 32, "expert_width": 16, "expert_mlp": 32, "depth": 1, "heads": 2, "head_dim": 8, "action_dim": 7,
}  # fmt: skip

if find_spec("robosuite") is None:
    pytest.skip("robosuite is not installed (extra [libero])", allow_module_level=True)


def episodes(folder: Path, seeds: range, environ: dict[str, str] | None = None):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (environ or {}).items():
            patch.setenv(name, value)
        arguments = {"simulator": "libero", "task": "Lift", "size": 64}
        return over_graph(arguments, seeds, folder, settings={"bridge": {"timeout_s": 60.0}})


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> list[Episode]:
    return episodes(tmp_path_factory.mktemp("prompt"), range(2))


@pytest.mark.timeout(600)
def test_lifts_a_cube_over_the_topics_row_by_row_with_the_same_bits_with_delays_and_without_topics(
    prompt: list[Episode], tmp_path: Path
) -> None:
    assert [(e.success, e.error, e.violations, e.lost, e.refused, e.holds) for e in prompt] == [
        (True, "", -1, 0, 0, [])
    ] * 2
    assert prompt[0].digest != prompt[1].digest
    late = {"PYTHONPATH": f"{DELAYS}:{os.environ.get('PYTHONPATH', '')}"}
    delayed = episodes(tmp_path / "late", range(1), late)
    assert [(e.digest, e.steps) for e in delayed] == [(prompt[0].digest, prompt[0].steps)]
    from sim.libero import LiberoAdapter

    direct = scripted_directly("libero", LiberoAdapter(("base", "wrist"), 64, 64), "Lift", range(2))
    assert [(e.digest, e.steps) for e in direct] == [(e.digest, e.steps) for e in prompt]
    every_row_was_fed_once_and_as_it_was(Path(prompt[0].bag))


def every_row_was_fed_once_and_as_it_was(bag: Path) -> None:
    opened = Bag(bag)
    told = {t.name: [opened.decode(m) for m in opened.messages([t.name])] for t in (ACTION_CHUNK, SIM_STEP)}
    plans = [chunk_from_msg(msg) for msg in told[ACTION_CHUNK.name] if msg.status == 0]
    steps = [msg for msg in told[SIM_STEP.name] if msg.status == 0]
    assert {plan.representation for plan in plans} == {Representation.EE_DELTA_STEP}
    stamps = [to_ns(step.header.stamp) for step in steps]
    assert len(set(stamps)) == len(stamps) > 20, "one row per control step"
    for step, now_ns in zip(steps, stamps, strict=True):
        plan = next(p for p in plans if p.sequence == step.sequence)
        row = plan.rows[(now_ns - plan.t0_ns) // plan.period_ns]
        np.testing.assert_array_equal(np.array(step.data), row)
    assert not list(opened.messages([TRAJECTORY.name, IMPEDANCE_TARGET.name])), "nothing for an arm"


@pytest.mark.timeout(300)
def test_a_bag_becomes_the_frames_of_a_collected_episode(prompt: list[Episode], tmp_path: Path) -> None:
    """Each has the row that its control step was fed; only the bag also has the picture of the success."""
    assert convert.main([prompt[0].bag, "--out", str(tmp_path / "set")]) == 0
    (recorded,) = LeRobotSource(tmp_path / "set").episodes
    source = LeRobotSource(tmp_path / "set")
    assert (source.representation, source.action_names) == (Representation.EE_DELTA_STEP, OSC_POSE)
    taken = take(CollectConfig(("Lift",), size_px=64), "Lift", 0, keep=True).taken
    assert taken is not None
    collected, count = taken.episode, len(taken.episode)
    assert count <= len(recorded) <= count + 1 and recorded.instruction == collected.instruction
    for name in ("proprioception", "actions"):
        one, other = (getattr(episode, name)[:count].astype(np.float32) for episode in (recorded, collected))
        np.testing.assert_array_equal(one, other)
    reached = convert_bag(Path(prompt[0].bag), tmp_path / "next", ConvertConfig(action="measured_next"), Selection())
    assert (reached.left_out, reached.representation, len(reached.action_names)) == ("", "joint_position", 8)
    grid = convert_bag(Path(prompt[0].bag), tmp_path / "grid", ConvertConfig(frames="grid"), Selection())
    assert "rows of control steps lie at observations" in grid.left_out
    stored = source.images(0, count - 1)["base"].astype(int)
    assert np.abs(stored - taken.images[0, count - 1]).mean() < 4


@pytest.mark.timeout(300)
def test_a_policy_trained_on_it_is_served_raw_directly_and_over_the_topics(
    prompt: list[Episode], tmp_path: Path
) -> None:
    from e0_policy.train import train
    from e0_policy.train_config import from_mapping

    assert convert.main([str(Path(prompt[0].bag).parent), "--out", str(tmp_path / "set")]) == 0
    run = {"data": str(tmp_path / "set"), "output": str(tmp_path / "run"), "augment": False, "batch_size": 4}
    steps = {"steps": 2, "warmup_steps": 0, "validation_fraction": 0.0, "constant_dimensions": "hold"}
    train(from_mapping({"model": TOY, **run, **steps}, "test"))
    config = EvalConfig(simulator="libero", checkpoint=str(tmp_path / "run" / "checkpoint"), max_steps=12)
    rollouts = []
    told = evaluate(config, Plan(("Lift",), range(1)), tmp_path / "lockstep", rollouts.append)
    assert (told["errors"], told["missing"]) == (0, 0), rollouts
    for mode in ("direct", "raw"):
        with RolloutRunner(completed(replace(config, mode=mode))) as runner:
            rollouts.append(runner.run(Job(POLICY, "Lift", 0)))
    assert [(r.error, r.steps, r.refused, r.holds) for r in rollouts] == [("", 12, 0, 0)] * 3
    assert [r.plans for r in rollouts] == [3] * 3, "every execution_horizon rows"
    assert rollouts[0].digest == rollouts[1].digest, "lock-step and direct"
