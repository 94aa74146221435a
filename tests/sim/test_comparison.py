from __future__ import annotations

import json
from pathlib import Path

import pytest

from e0_ros.config import ConfigError
from sim.compare import main
from sim.comparison import compare, open_run
from sim.eval_pictures import first_frame_path
from sim.eval_rollouts import BLANK, ERROR, FAILURE, POLICY, SUCCESS, Rollout, RolloutStore

BASE = {"simulator": "maniskill", "mode": "direct", "checkpoint": "abc/def", "code_version": "v"}


def run(folder: Path, outcomes: dict[str, str], **changes: object) -> Path:
    """An evaluation with a letter per seed and task: s, f, e, or - for none."""
    store = RolloutStore(folder, {**BASE, **changes})
    for task, letters in outcomes.items():
        for seed, letter in enumerate(letters):
            if letter != "-":
                outcome = {"s": SUCCESS, "f": FAILURE, "e": ERROR}[letter]
                store.add(Rollout(POLICY, task, seed, outcome, error="broken" if outcome == ERROR else ""))
                store.add(Rollout(BLANK, task, seed, SUCCESS))
    store.close()
    return folder


def test_pairs_are_counted_by_task_and_what_only_one_ran_is_left_out(tmp_path: Path) -> None:
    a = run(tmp_path / "a", {"Pick": "ssssffe-s", "Push": "ss"})
    b = run(tmp_path / "b", {"Pick": "sffffsss", "Push": "sf"}, settings={"steps": 4})
    told = compare(open_run(a), open_run(b))
    pick = told["tasks"]["Pick"]
    assert (pick["pairs"], pick["first"], pick["second"]) == (6, 4, 2)
    assert [pick[kind] for kind in ("both", "only_first", "only_second", "neither")] == [1, 3, 1, 1]
    assert pick["difference"] == pytest.approx(-2 / 6) and pick["mcnemar_p"] == pytest.approx(0.625)
    assert (told["tasks"]["all"]["pairs"], told["tasks"]["all"]["only_first"]) == (8, 4)
    assert told["left_out"] == 3, "an error of the first, and one seed of each alone"
    assert told["differences"] == {"settings.steps": (None, 4)}


def test_the_command_prints_writes_json_and_a_page_that_asks_for_nothing(tmp_path: Path, capsys) -> None:
    a = run(tmp_path / "<a>", {"Pick": "ssssssssff"})
    b = run(tmp_path / "b", {"Pick": "ssffffffff"}, camera_shift_deg=10.0)
    c = run(tmp_path / "c", {"Pick": "ssssssssff"}, camera_shift_deg=5.0)
    for seed, folder in ((2, a), (9, a)):
        path = first_frame_path(folder, next(j for j in open_run(a).rollouts if j.seed == seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"jpeg")
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    assert main([str(a), str(b), str(c), "--html", str(page), "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert "8 = 80 %  2 = 20 %" in printed and "-60 (" in printed and "0.031" in printed
    assert "fixed cameras moved by 10 deg, not calibrated again" in printed
    assert "+0 (" in printed and "1.000" in printed
    text = page.read_text()
    assert "&lt;a&gt;" in text and "<a>" not in text and "http" not in text.replace("http-equiv", "")
    assert text.count("<img") == 1, "the one scene with a picture that only the first mastered"
    assert text.count('<i class="success"') == 18 and text.count('<i class="failure"') == 12
    told = json.loads(figures.read_text())["comparisons"]
    assert [t["tasks"]["Pick"]["only_first"] for t in told] == [6, 0]


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys) -> None:
    a = run(tmp_path / "a", {"Pick": "ss"})
    other = run(tmp_path / "other", {"Pick": "ss"}, simulator="fr3_plant")
    apart = run(tmp_path / "apart", {"Push": "ss"})
    for words, text in (
        ([a], "two evaluations or more"),
        ([a, other], "different simulators"),
        ([a, apart], "no task and seed in common"),
        ([a, tmp_path], "holds no evaluation"),
    ):
        assert main([str(word) for word in words]) == 2
        assert text in capsys.readouterr().err
    with pytest.raises(ConfigError):
        open_run(tmp_path / "nothing")


def test_runs_of_the_papers_tasks_are_set_beside_its_rows(tmp_path: Path) -> None:
    names = ("PegInsertionSide-v1", "PickCube-v1", "StackCube-v1", "PlugCharger-v1", "PushCube-v1")
    folders = [run(tmp_path / "a", dict.fromkeys(names, "sf")), run(tmp_path / "b", dict.fromkeys(names, "ss"))]
    assert main([str(folder) for folder in folders]) == 0
    page = (tmp_path / "b" / "comparison.html").read_text()
    assert "Beside the paper" in page and "E0 (paper)</td><td>24.0" in page and "55.2" in page
    assert "<td>a</td><td>50.0" in page and "<td>b</td><td>100.0" in page
