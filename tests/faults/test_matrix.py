"""The matrix and SAFETY.md name tests that exist."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.faults import run as runner
from tests.faults.matrix import MATRIX, Row
from tests.faults.run import Outcomes, Results, execute, figure, main, table, verdict

ROOT = Path(__file__).resolve().parents[2]


def exists(test: str) -> bool:
    path, name = test.split("::")
    return (ROOT / path).is_file() and f"def {name}(" in (ROOT / path).read_text()


def test_every_row_is_there_once_and_says_what_is_missing() -> None:
    assert [row.number for row in MATRIX] == list(range(1, 42))
    assert all(row.tests or row.missing for row in MATRIX)


@pytest.mark.parametrize("row", MATRIX, ids=lambda row: str(row.number))
def test_every_test_of_a_row_exists(row: Row) -> None:
    assert [test for test in row.tests if not exists(test)] == []


def test_every_test_that_safety_md_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py::\w+)`", (ROOT / "SAFETY.md").read_text())
    assert len(named) > 20 and [test for test in named if not exists(test)] == []


def test_a_row_passes_only_if_all_its_tests_ran_and_passed() -> None:
    row = Row(1, "fault", "target", ("a.py::test_a", "b.py::test_b"))
    for outcomes, expected in (
        ({"a.py::test_a": ["passed"], "b.py::test_b": ["passed"]}, "pass"),
        ({"a.py::test_a": ["passed", "failed"], "b.py::test_b": ["passed"]}, "FAIL"),
        ({"a.py::test_a": ["passed"]}, "FAIL"),
        ({"a.py::test_a": ["passed"], "b.py::test_b": ["skipped no tmpfs"]}, "partly"),
        ({"a.py::test_a": ["skipped x"], "b.py::test_b": ["skipped x"]}, "untested"),
    ):
        run = Outcomes()
        run.outcomes |= outcomes
        assert verdict(row, run) == expected
    assert verdict(Row(1, "fault", "target", missing="why"), Outcomes()) == "untested"


def test_a_row_whose_figure_is_beyond_its_target_is_no_pass() -> None:
    run, row = Outcomes(), Row(1, "fault", "target", ("a.py::test_a",))
    run.outcomes["a.py::test_a"] = ["passed"]
    run.figures["a.py::test_a"], run.beyond["a.py::test_a"] = ["55 ms"], ["55 ms of 20"]
    assert (verdict(row, run), figure(row, run)) == ("partly", "55 ms; BEYOND: 55 ms of 20")
    run.outcomes["a.py::test_a"] = ["failed"]
    assert verdict(row, run) == "FAIL"


def test_the_table_tells_figures_and_what_is_missing() -> None:
    run, row = Outcomes(), Row(1, "fault", "target", ("a.py::test_a", "b.py::test_b"), "the rest")
    run.outcomes |= {"a.py::test_a": ["passed"], "b.py::test_b": ["passed", "passed"]}
    run.figures["a.py::test_a"] = ["3 ms"]
    assert figure(row, run) == "3 ms; 2 more passed; not: the rest"
    run.figures["b.py::test_b"] = ["refused", "refused"]
    assert figure(row, run) == "3 ms; 2 x refused; not: the rest"
    assert table([("1", "a fault", "t", "f", "pass")]).startswith("1    a fault")


def test_each_file_runs_in_a_process_of_its_own_and_one_that_does_not_end_is_not_run(tmp_path: Path) -> None:
    told = "import os\n\ndef test_a(record_property):\n    record_property('figure', os.getpid())\n"
    told += "    record_property('beyond', 'far')\n"
    (tmp_path / "test_one.py").write_text(told)
    (tmp_path / "test_two.py").write_text(told + "\ndef test_b():\n    assert False\n")
    halves = "import pytest\n\n@pytest.mark.parametrize('k', [1, 2])\ndef test_c(k):\n    if k > 1:\n"
    (tmp_path / "test_interrupted.py").write_text(f"{halves}        raise KeyboardInterrupt\n")
    (tmp_path / "test_dies.py").write_text("import os\n\ndef test_c():\n    os._exit(9)\n")
    expected = {"test_one.py::test_a": ["passed"], "test_two.py::test_a": ["passed"], "test_two.py::test_b": ["failed"]}
    others = ("test_dies.py::test_c", "test_interrupted.py::test_c")
    run = execute(f"{tmp_path}/{test}" for test in (*others, *expected, *expected))
    assert {name.rsplit("/", 1)[-1]: outcomes for name, outcomes in run.outcomes.items()} == expected
    processes = {figures[0] for figures in run.figures.values() if figures}
    assert len(processes) == 2 and str(os.getpid()) not in processes
    assert [told for told in run.beyond.values() if told] == [["far"], ["far"]]


ROWS = (Row(1, "one", "t", ("a.py::test_a", "b.py::test_b")), Row(2, "two", "t", ("a.py::test_a", "c.py::test_c")))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Which tests were asked for, row by row, of a matrix of two; test_c fails."""
    asked: list[list[str]] = []

    def stand_in(tests: list[str]) -> Outcomes:
        asked.append(list(tests))
        made = Outcomes()
        for test in tests:
            made.outcomes[test] = ["failed" if test == "c.py::test_c" else "passed"]
            made.figures[test] = [f"run {len(asked)}"]
        return made

    monkeypatch.setattr(runner, "MATRIX", ROWS)
    monkeypatch.setattr(runner, "execute", stand_in)
    monkeypatch.setattr(runner, "code_version", lambda: "v1")
    return asked


def test_what_is_done_is_in_the_file_and_is_not_run_again_unless_asked(
    ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--json", str(tmp_path / "new" / "faults.json")]
    assert main(["1", *words]) == 0
    held = json.loads((tmp_path / "new" / "faults.json").read_text())
    assert [(row["number"], row["verdict"], row["figure"]) for row in held["rows"]] == [(1, "pass", "2 x run 1")]
    assert main(words) == 1, "a row failed"
    assert ran == [["a.py::test_a", "b.py::test_b"], [], ["c.py::test_c"]], "tests of two rows are run once"
    del ran[:]
    assert main(words) == 1 and ran == [[], []], "also what failed"
    assert main(["2", "--again", *words]) == 1 and ran[2:] == [["a.py::test_a", "c.py::test_c"]]
    monkeypatch.setattr(runner, "code_version", lambda: "v2")
    assert main(["1", *words]) == 0 and ran[3:] == [["a.py::test_a", "b.py::test_b"]], "of another version"
    monkeypatch.setattr(runner, "code_version", lambda: "v2-dirty")
    assert [main(["1", *words]) for _ in range(2)] == [0, 0] and len(ran[4:][0]) == len(ran[5:][0]) == 2, "unknown code"


def test_an_interrupt_keeps_the_rows_before_it(
    ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = runner.execute

    def interrupted(tests: list[str]) -> Outcomes:
        if "c.py::test_c" in tests:
            raise KeyboardInterrupt
        return whole(tests)

    monkeypatch.setattr(runner, "execute", interrupted)
    path = tmp_path / "faults.json"
    assert main(["--json", str(path)]) == 130
    assert [row["number"] for row in json.loads(path.read_text())["rows"]] == [1]
    told = capsys.readouterr()
    assert "row 1: pass; 2 x run 1" in told.err and str(path) in told.out


def test_a_test_that_did_not_run_fails_its_row_and_is_run_the_next_time(
    ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "faults.json", runner.execute
    monkeypatch.setattr(runner, "execute", lambda tests: Outcomes())
    assert main(["1", "--json", str(path)]) == 1
    assert json.loads(path.read_text())["rows"][0]["figure"] == "not run; not run"
    monkeypatch.setattr(runner, "execute", whole)
    assert main(["1", "--json", str(path)]) == 0


def test_a_row_that_is_none_is_refused_with_those_that_are(
    ran: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["1", "3", "x"])
    told = capsys.readouterr().err
    assert "there is no row 3, x" in told and "1 one" in told and "2 two" in told and not ran


def test_a_file_of_results_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('{"version": "v1, short"}')
    with pytest.raises(SystemExit, match=r"faults\.json holds no results of the matrix"):
        Results(path, "v1, short")
