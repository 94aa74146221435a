from __future__ import annotations

import pytest

from sim.eval_rollouts import Rollout
from sim.eval_summary import summary
from sim.maniskill_tasks import TASKS
from sim.paper import AVERAGE, beside, paper_tables, rate_cells, table_of, text_beside, words

FIVE = ("PegInsertionSide-v1", "PickCube-v1", "StackCube-v1", "PlugCharger-v1", "PushCube-v1")


def told(rates: dict[str, float]) -> dict:
    tasks = {
        task: {
            "success_rate": rate,
            "episodes": 21,
            "errors": 1,
            "max_steps": TASKS[task].max_steps,
            "official_steps": TASKS[task].official_steps,
            "official": {"success_rate": rate / 2},
        }
        for task, rate in rates.items()
    }
    return {"tasks": tasks}


def test_every_row_has_its_columns_and_averages_are_right_or_noted() -> None:
    """Not of Table 1, whose averages are over benchmarks that were run."""
    wrong = set()
    for number, table in paper_tables().items():
        assert len(set(table.columns)) == len(table.columns)
        for model, values in table.rows.items():
            assert len(values) == len(table.columns)
            *own, average = values
            if None not in values and number != "1" and abs(sum(own) / len(own) - average) > 0.051:
                wrong.add((number, model))
    assert {(n, m) for n, m in wrong if n != "12"} == {
        ("2", "E0"),
        ("10", "Diffusion Policy"),
        ("10", "OpenVLA"),
        ("10", "RDT"),
    }
    for number, model in wrong:
        assert model in paper_tables()[number].note


def test_tables_that_repeat_each_other_agree() -> None:
    tables = paper_tables()
    differ = set()
    for number in ("9", "10", "11"):
        columns = [c for c in tables[number].columns if c != AVERAGE]
        for model, values in tables["1"].pick(columns).items():
            if None not in values and model in tables[number].rows:
                there = tables[number].pick(columns)[model]
                differ |= {(model, c) for c, a, b in zip(columns, values, there, strict=True) if abs(a - b) > 0.051}
    assert differ == {("OpenVLA", "PushCube-v1")}, "as the paper prints it"


def test_a_whole_suite_stands_beside_the_papers_rows_with_its_average() -> None:
    found = beside(told(dict(zip(FIVE, (0.25, 0.75, 0.7, 0.05, 1.0), strict=True))))
    assert found is not None
    table, rows = found
    assert table.number == "10" and rows[0][1:] == (*FIVE, AVERAGE)
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["E0 (paper)"] == ("24.0", "76.0", "72.0", "4.0", "100.0", "55.2")
    assert by_name["this run"] == ("25.0", "75.0", "70.0", "5.0", "100.0", "55.0")
    assert by_name["this run, official limits"][-1] == "27.5"
    assert by_name["rollouts of this run"] == ("20",) * 5 + ("100",)
    assert by_name["its steps / official limit"][0] == "400 / 100"


def test_a_task_that_only_raised_is_no_failure_beside_the_paper() -> None:
    ran = told(dict.fromkeys(FIVE, 1.0))
    ran["tasks"][FIVE[0]] |= {"success_rate": None, "errors": 21, "official": {"success_rate": None}}
    for name in ("this run", "this run, official limits"):
        cells = {row[0]: row[1:] for row in beside(ran)[1]}[name]
        assert (cells[0], cells[-1]) == ("-", "-") and "-" not in cells[1:-1]
    assert rate_cells({"a": 0.5, "b": None}) == {"a": "50.0", "b": "-", AVERAGE: "-"}


def test_pooled_tasks_keep_their_official_rates() -> None:
    tasks = [f"libero_spatial/{n}" for n in range(3)]
    rollouts = [Rollout("policy", task, 0, "success", steps=550, max_steps=600) for task in tasks[:2]]
    rollouts.append(Rollout("policy", tasks[2], 0, "error", max_steps=600))
    _, rows = beside(summary(rollouts, {"simulator": "libero"}))
    cells = {row[0]: row[1:] for row in rows}
    assert cells["this run"] == ("100.0",) and cells["this run, official limits"] == ("0.0",)


def test_some_of_the_tasks_have_no_average_and_others_no_table() -> None:
    text = text_beside(told({"PickCube-v1": 0.5}))
    assert "average" not in text.split("source")[0] and "Table 10" in text and "E0 (paper)" in text
    assert table_of(["Reach-v0"]) is None and table_of([]) is None
    assert text_beside({"tasks": {"Reach-v0": {}}}) == ""
    assert words(paper_tables()["9"]) == [
        "source: E0, arXiv 2511.21542, Table 9; it states neither step limits nor seeds"
    ]


def test_the_real_arms_table_is_the_papers() -> None:
    table = paper_tables()["2"]
    assert table.pick(["pick", "put_and_close"])["E0"] == (75.0, 20.0)
    assert paper_tables()["13"].pick(["adjust_bottle"])["pi0"] == (pytest.approx(41.0),)
    assert len(paper_tables()["13"].columns) == 51
