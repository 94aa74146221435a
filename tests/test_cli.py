import json
import signal
import subprocess
import sys

import pytest

from e0_ros import cli, env_command, launch_command
from e0_ros.bench import command as bench


def test_usage_lists_every_verb_with_an_example(capsys):
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text and f"e0 {verb}" in text for verb in cli.VERBS)


def test_a_verb_of_two_words_goes_before_one_of_its_first(monkeypatch):
    called = []
    monkeypatch.setattr(env_command, "main", called.append)
    monkeypatch.setitem(cli.VERBS, "bench policy", ("e0_ros.env_command:main", ""))
    assert cli.main(["bench", "policy", "--size", "nano"]) == 0
    assert called == [["--size", "nano"]]


def test_unknown_verb_names_the_closest(capsys):
    assert cli.main(["lunch"]) == 2
    assert "did you mean 'launch'" in capsys.readouterr().err


def test_verbs_are_imported_only_when_used():
    code = "import sys, e0_ros.cli as c; c.main(['--help']); print([m for m in ('rclpy', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_rollouts_are_the_same_bits_as_the_nodes_which_have_one_thread_for_matrices(monkeypatch):
    code = (
        "import os, sys, e0_ros.cli as c; print('numpy' in sys.modules); c.main(['--help']); print(os.environ[{0!r}])"
    )
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    done = subprocess.run([sys.executable, "-c", code.format("OPENBLAS_NUM_THREADS")], capture_output=True, text=True)
    assert (done.stdout.splitlines()[0], done.stdout.splitlines()[-1]) == ("False", "1")


def test_a_verb_that_is_not_there_says_so(monkeypatch, capsys):
    monkeypatch.setitem(cli.VERBS, "demo", ("sim.nowhere:main", ""))
    assert cli.main(["demo"]) == 1
    assert "sim.nowhere is not installed" in capsys.readouterr().err


def test_statuses_of_a_verb(monkeypatch, capsys):
    from e0_ros.config import ConfigError

    def wrong(argv):
        raise ConfigError("seed is -1")

    monkeypatch.setattr(env_command, "main", wrong)
    assert cli.main(["env"]) == 2
    assert "seed is -1" in capsys.readouterr().err
    monkeypatch.setattr(env_command, "main", lambda argv: None)
    assert cli.main(["env"]) == 0


@pytest.mark.parametrize("verb", ["launch", "env", "bench"])
def test_help_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--help"])
    assert end.value.code == 0
    assert f"example: e0 {verb}" in capsys.readouterr().out


def test_env_says_what_it_runs_on(tmp_path, capsys):
    assert cli.main(["env", "--json", str(tmp_path / "env.json")]) == 0
    facts = json.loads((tmp_path / "env.json").read_text())
    assert facts["python"].startswith(sys.version.split()[0])
    assert facts["numpy"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sym"], "did you mean 'sim'"),
        (["sim", "simulater:=maniskill"], "did you mean 'simulator'"),
        (["sim", "seed:=-1"], "allowed is 0"),
        (["franka"], "robot_ip:=ADDRESS"),
    ],
)
def test_launch_refuses_what_it_does_not_know(words, message, capsys):
    assert launch_command.main(words) == 2
    assert message in capsys.readouterr().err


def test_launch_shows_a_graphs_arguments(capsys):
    assert launch_command.main(["sim", "--show"]) == 0
    assert "simulator:=maniskill" in capsys.readouterr().out


class Launched:
    """A launcher that gets signals while it starts; `hurried` after each."""

    def __init__(self, *numbers):
        self.numbers, self.hurried, self.stopping = numbers, [], False

    def running(self):
        return not self.stopping

    def request_stop(self, hurry):
        self.stopping = True
        self.hurried.append(hurry)

    def start(self):
        for number in self.numbers:
            signal.raise_signal(number)

    def wait(self, timeout_s):
        return 0

    def stop(self):
        pass


@pytest.mark.parametrize(
    ("numbers", "hurried"),
    [
        ((signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGINT), [False, False, False, True]),
        ((signal.SIGHUP, signal.SIGHUP, signal.SIGINT), [False, False, True]),
    ],
)
def test_only_a_second_ctrl_c_hurries_a_graph_that_is_stopping(numbers, hurried):
    launched = Launched(*numbers)
    assert launch_command._run(launched) == 0
    assert launched.hurried == hurried


def test_lines_carry_their_process_in_a_colour_of_its_own(capsys):
    terminal = launch_command.Terminal(colour=True)
    terminal("a", "one")
    terminal("b", "two")
    launch_command.Terminal(colour=False)("a", "three")
    assert capsys.readouterr().out.splitlines() == ["\x1b[36m[a]\x1b[0m one", "\x1b[33m[b]\x1b[0m two", "[a] three"]


RUNS = [{"image_ms": ms, "lost": 1, "rate_hz": 250.0} for ms in (1.0, 3.0, 2.0)]
TARGETS = {"image_ms": "<= 2", "lost": "<= 0"}


def test_figures_have_median_n_spread_and_target():
    lines = bench.figures("transport", RUNS, TARGETS)
    assert [line.cells() for line in lines] == [
        ("transport", "image_ms", "2", "3", "1 .. 3", "<= 2", "yes"),
        ("transport", "lost", "1", "3", "1 .. 1", "<= 0", "NO"),
        ("transport", "rate_hz", "250", "3", "250 .. 250", "", ""),
    ]
    text = bench.table(lines, markdown=True).splitlines()
    assert text[1].startswith("| ---")
    assert len({len(line) for line in text}) == 1


@pytest.mark.parametrize("targets", [{"image_ms": "2"}, {"image_ms": "< 2"}, {"image": "<= 2"}])
def test_targets_that_mean_nothing_are_an_error(targets):
    with pytest.raises(ValueError, match="of a measured figure is needed"):
        bench.figures("x", RUNS, targets)


def test_bench_runs_what_is_there_and_reports_what_fails(monkeypatch, tmp_path, capsys):
    class Good:
        TARGETS = TARGETS
        run = staticmethod(lambda seconds: RUNS[0])

    class Bad:
        @staticmethod
        def run(seconds):
            raise RuntimeError("no shared memory")

    monkeypatch.setattr(bench, "benchmarks", lambda: ["bad", "good"])
    monkeypatch.setitem(sys.modules, "e0_ros.bench.good", Good)
    monkeypatch.setitem(sys.modules, "e0_ros.bench.bad", Bad)
    files = ["--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md")]
    assert bench.main(["--seconds", "1", *files]) == 1
    assert "no shared memory" in capsys.readouterr().err
    assert [f["met"] for f in json.loads((tmp_path / "b.json").read_text())] == [True, False, None]
    assert bench.main(["good", "--targets"]) == 0
    assert "rate_hz" not in capsys.readouterr().out
    assert (tmp_path / "b.md").read_text().startswith("| benchmark")
    assert bench.main(["good"]) == 0
