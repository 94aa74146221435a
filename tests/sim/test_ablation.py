"""`e0 ablate` in small: it trains, evaluates, goes on after a kill, and says what it counts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from e0_ros.policies import Card
from sim import ablation, ablation_command
from sim.ablation import Rollout, read_rollouts, row
from sim.ablation_suites import SUITES, Variant, heads
from sim.detour_data import write_detour

SMALL = ["model.image_size=16", "model.width=16", "model.expert_width=16", "model.mlp=16", "model.expert_mlp=16",
         "model.vision_width=16", "model.depth=1", "model.head_dim=4", "steps=2", "warmup_steps=1", "batch_size=2",
         "validation_samples=2"]  # fmt: skip


def words(tmp_path: Path, *more: str) -> list[str]:
    shared = ["--suite", "heads", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "told.json")]
    tmp_path.mkdir(exist_ok=True)
    return [*shared, "--demonstrations", "3", "--seeds", "7:9", "--set", *SMALL, *more]


def test_a_suite_is_run_and_goes_on_where_it_was(tmp_path, capsys) -> None:
    few = ["--groups", "E0", "regression"]
    assert ablation_command.main(words(tmp_path, *few)) == 0
    told = json.loads((tmp_path / "told.json").read_text())["rows"]
    assert [(r["label"], r["n"], r["training"]) for r in told] == [
        *((f"N = {n}", 2, "e0") for n in (1, 2, 4, 10)), ("squared error", 2, "l2"), ("absolute error", 2, "l1")
    ]  # fmt: skip
    assert "| E0 | N = 4 | " in capsys.readouterr().out

    file = next((tmp_path / "out" / "l1").glob("rollouts-*.jsonl"))
    first, second = file.read_text().splitlines()
    file.write_text(f"{first}\n{second[:9]}")
    assert ablation_command.main(words(tmp_path, *few)) == 0
    out = capsys.readouterr().out
    assert "l1, regression absolute error: 1 rollouts" in out and "l1: train" not in out
    assert file.read_text().splitlines() == [first, second], "the rollout run again is the same"


def test_several_at_a_time_leave_the_same_rollouts(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # how many threads add up a sum decides its last bits
    few = ["--groups", "regression"]
    assert ablation_command.main(words(tmp_path / "one", *few)) == 0
    assert ablation_command.main(words(tmp_path / "two", *few, "--jobs", "2")) == 0
    one, two = (json.loads((tmp_path / n / "told.json").read_text())["rows"] for n in ("one", "two"))
    assert [r["training"] for r in one] == ["l2", "l1"] and one == two
    for training in ("l1", "l2"):
        once, twice = (next((tmp_path / n / "out" / training).glob("rollouts-*.jsonl")) for n in ("one", "two"))
        assert once.read_text() == twice.read_text()


def test_other_settings_in_the_same_folder_are_refused(tmp_path, capsys) -> None:
    folder = tmp_path / "out" / "l2"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"config": "", "changes": {}}))
    assert ablation_command.main(words(tmp_path, "--groups", "regression")) == 2
    assert "trained with other settings" in capsys.readouterr().err


def test_other_demonstrations_in_the_same_folder_are_refused(tmp_path, capsys) -> None:
    given = words(tmp_path, "--groups", "regression")
    (tmp_path / "out").mkdir()
    write_detour(tmp_path / "out" / "data", 3, 16)
    for more, asked in (
        (["--demonstrations", "4"], "4 with base of 16 px"),
        (["--set", "model.image_size=32"], "3 with base of 32 px"),
        (["--set", "model.image_size=16", "model.views=[base, wrist]"], "3 with base, wrist of 16 px"),
    ):
        assert ablation_command.main([*given, *more]) == 2
        said = f"has 3 demonstrations with base of 16 px; asked for are {asked}"
        assert said in capsys.readouterr().err


def test_rollouts_of_other_code_are_run_again(tmp_path, monkeypatch) -> None:
    ran: list[int] = []

    def rollouts(bench, variant, checkpoint, seeds):
        ran.extend(seeds)
        return [Rollout(seed, True, "left", 3) for seed in seeds]

    monkeypatch.setattr(ablation, "_rollouts", rollouts)
    monkeypatch.setattr(ablation, "read_card", lambda _: Card("w", "c", "fr3", ("base",), 16, 5))
    bench = ablation.Bench(Path("c"), {}, (0.1,), "fr3_plant", "Detour-v0", range(2), tmp_path)
    for version, said in (("v1", 1), ("v1", 1), ("v2", 2)):
        monkeypatch.setattr(ablation, "code_version", lambda version=version: version)
        found = ablation.evaluate(bench, heads()[0], tmp_path / "checkpoint", range(2), lambda _: None)
        assert len(found) == 2 and len(ran) == 2 * said


def test_a_training_that_fails_is_named(tmp_path, capsys) -> None:
    assert ablation_command.main(words(tmp_path, "model.depth=0")) == 2
    assert "e0: training ended with 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--groups", "e0"], "no group 'e0'"),
        (["--task", "Reach-v0"], "needs --data"),
        (["--task", "Detour-v1"], "did you mean 'Detour-v0'"),
        (["--set", "output=x"], "options of their own"),
        (["--set", "model.steps=4"], "suite heads varies it"),
        (["--config", "nowhere.yaml"], "give a YAML file"),
        (["--jobs", "0"], "--jobs is 0"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, capsys, more, reason) -> None:
    assert ablation_command.main([*words(tmp_path), *more]) == 2
    assert reason in capsys.readouterr().err


def test_the_lowest_validation_loss_of_all_rates_is_evaluated(tmp_path, monkeypatch) -> None:
    losses = {0.1: 3.0, 0.2: 1.0, 0.3: 2.0}
    monkeypatch.setattr(
        ablation,
        "train",
        lambda config, changes, folder, tell, jobs: {"validation": {"loss": losses[changes["learning_rate"]]}},
    )
    bench = ablation.Bench(Path("x"), {}, tuple(losses), "fr3_plant", "Detour-v0", range(1), tmp_path)
    assert ablation.best_of(bench, heads()[0], print)[0].name == "e0-lr0.2"


def test_an_error_is_no_rollout_and_a_failure_may_be_pure() -> None:
    ran = [
        Rollout(0, True, "left", 9),
        Rollout(1, False, "right", 9),
        Rollout(2, False, "", 9),
        Rollout(3, False, "", 1, "x"),
    ]
    found = row(Variant("E0", "N = 1", "e0"), "e0", {"step": 5, "validation": None}, ran)
    assert (found["n"], found["errors"], found["successes"], found["pure"]) == (3, 1, 1, 2)
    text = ablation_command.table([found])
    assert "| 33 (6 to 79) | 67 (21 to 94) | 1 left, 1 right | 3 |" in text


def test_a_torn_line_is_cut_off(tmp_path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(asdict(Rollout(4, True, "left", 3))) + '\n{"seed": 5')
    assert read_rollouts(path) == [Rollout(4, True, "left", 3)]
    assert path.read_text().endswith("}\n")


def test_the_base_of_the_papers_ablations_is_a_row_of_every_group_and_trained_once() -> None:
    by_group: dict[str, list[Variant]] = {}
    for variant in SUITES["paper"]():
        by_group.setdefault(variant.group, []).append(variant)
    assert list(by_group) == ["N", "seed", "alpha", "normalization", "layout", "bins", "horizon"]
    for group, variants in by_group.items():
        base = [variant for variant in variants if variant.training == "base"]
        assert {variant.served_as for variant in base} >= {("base", '{"steps": 1}'), ("base", '{"steps": 10}')}, group
        assert all(variant.changes == base[0].changes for variant in base)
        others = [variant for variant in variants if variant.training != "base"]
        assert all(variant.changes != base[0].changes for variant in others) and (others or group == "N")


def test_what_is_served_alike_is_evaluated_once(tmp_path, monkeypatch) -> None:
    twice = [Variant(group, "N = 1", "e0", settings={"steps": 1}) for group in ("one", "other")]
    monkeypatch.setattr(ablation, "best_of", lambda *_: (tmp_path / "e0", {"step": 1, "validation": None}))
    ran: list[str] = []

    def evaluate(bench, variant, checkpoint, seeds, tell):
        ran.append(variant.group)
        return [Rollout(seed, True, "left", 3) for seed in seeds]

    monkeypatch.setattr(ablation, "evaluate", evaluate)
    bench = ablation.Bench(Path("c"), {}, (0.1,), "fr3_plant", "Detour-v0", range(3), tmp_path)
    rows = list(ablation.run(bench, twice, lambda text: None))[-1]
    assert ran == ["other"] and [(r["group"], r["n"]) for r in rows] == [("one", 3), ("other", 3)]


def test_variants_that_share_a_training_agree_on_its_settings() -> None:
    for suite in SUITES.values():
        seen: dict[str, object] = {}
        for variant in suite():
            assert seen.setdefault(variant.training, variant.changes) == variant.changes
