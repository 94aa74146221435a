"""The matrix and SAFETY.md name tests that exist."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.faults.matrix import MATRIX, Row
from tests.faults.run import Outcomes, execute, figure, table, verdict

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
        assert verdict(row, outcomes) == expected
    assert verdict(Row(1, "fault", "target", missing="why"), {}) == "untested"


def test_the_table_tells_figures_and_what_is_missing() -> None:
    run, row = Outcomes(), Row(1, "fault", "target", ("a.py::test_a", "b.py::test_b"), "the rest")
    run.outcomes |= {"a.py::test_a": ["passed"], "b.py::test_b": ["passed", "passed"]}
    run.figures["a.py::test_a"] = ["3 ms"]
    assert figure(row, run) == "3 ms; 2 more passed; not: the rest"
    assert table([("1", "a fault", "t", "f", "pass")]).startswith("1    a fault")


def test_each_file_runs_in_a_process_of_its_own_and_one_that_dies_is_not_run(tmp_path: Path) -> None:
    told = "import os\n\ndef test_a(record_property):\n    record_property('figure', os.getpid())\n"
    (tmp_path / "test_one.py").write_text(told)
    (tmp_path / "test_two.py").write_text(told + "\ndef test_b():\n    assert False\n")
    (tmp_path / "test_dies.py").write_text("import os\n\ndef test_c():\n    os._exit(9)\n")
    expected = {"test_one.py::test_a": ["passed"], "test_two.py::test_a": ["passed"], "test_two.py::test_b": ["failed"]}
    run = execute(f"{tmp_path}/{test}" for test in ("test_dies.py::test_c", *expected, *expected))
    assert {name.rsplit("/", 1)[-1]: outcomes for name, outcomes in run.outcomes.items()} == expected
    processes = {figures[0] for figures in run.figures.values() if figures}
    assert len(processes) == 2 and str(os.getpid()) not in processes
