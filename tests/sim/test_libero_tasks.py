"""LIBERO's own files: 130 tasks with fifty initial states each, read without LIBERO and without its assets."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from e0_ros.config import ConfigError
from sim import libero_tasks as tasks

if tasks.package() is None:
    pytest.skip("libero is not installed (extra [libero])", allow_module_level=True)


def test_there_are_130_tasks_each_with_its_problem_and_an_instruction_that_no_other_of_its_suite_has() -> None:
    known = tasks.tasks()
    assert len(known) == 130 and list(known)[:2] == ["libero_spatial/0", "libero_spatial/1"]
    for suite, count in (*dict.fromkeys(list(tasks.LIMITS)[:4], 10).items(), ("libero_90", 90)):
        assert sum(task.startswith(f"{suite}/") for task in known) == count
    told = tasks.instructions()
    assert told["libero_goal/0"] == "open the middle drawer of the cabinet" and told[tasks.LIFT]
    assert told["libero_10/0"] == "put both the alphabet soup and the tomato sauce in the basket"
    for task in known:
        text = tasks.problem_file(task).read_text()
        assert "(:goal" in text and "(:language" in text
        assert tasks.official_steps(task) == tasks.LIMITS[task.split("/")[0]]


@pytest.mark.parametrize("suite", tasks.LIMITS)
def test_every_task_has_fifty_finite_initial_states_that_differ(suite: str) -> None:
    for task in (task for task in tasks.tasks() if task.startswith(f"{suite}/")):
        states = tasks.initial_states(task)
        assert states.shape[0] == tasks.INITIAL_STATES and len(np.unique(states, axis=0)) == tasks.INITIAL_STATES


def test_a_file_of_states_runs_no_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = tmp_path / "init_files" / "libero_10"
    folder.mkdir(parents=True)
    monkeypatch.setattr(tasks, "_root", lambda: tmp_path)
    path = folder / f"{tasks.tasks()['libero_10/0'][1]}.pruned_init"
    for value, error, text in ((Bad(), pickle.UnpicklingError, "mkdir"), (np.array([np.nan]), ConfigError, "finite")):
        data = io.BytesIO()
        pickle.dump(value, data)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data.getvalue())
        with pytest.raises(error, match=text):
            tasks.initial_states("libero_10/0")
    assert not (tmp_path / "ran").exists()


def test_unknown_tasks_and_initial_states_are_named() -> None:
    with pytest.raises(ValueError, match=r"no task 'libero_spatial/11'.*libero_spatial/1"):
        tasks.check_task("libero_spatial/11", 0)
    with pytest.raises(ValueError, match="seed is 50; a task of LIBERO has the initial states 0 to 49"):
        tasks.check_task("libero_spatial/1", 50)
    with pytest.raises(ValueError, match="and drawn scenes from 100000 on"):
        tasks.check_task("libero_spatial/1", tasks.FIRST_DRAWN - 1)
    tasks.check_task(tasks.LIFT, 50)
    tasks.check_task("libero_spatial/1", tasks.FIRST_DRAWN)


def test_importing_libero_asks_nothing_once_it_is_prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "assets" / "scenes").mkdir(parents=True)
    environ = {"LIBERO_ASSETS": str(tmp_path / "assets"), "LIBERO_CONFIG_PATH": str(tmp_path / "config")}
    script = (
        "from sim import libero_tasks\nassets = libero_tasks.prepare()\nimport libero.libero as l\n"
        "assert l.get_libero_path('assets') == str(assets), assets\n"
        "assert l.get_libero_path('bddl_files').endswith('bddl_files')\n"
    )
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
