import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e0_ros import launcher as module
from e0_ros import readiness
from e0_ros.drivers import CONTINUE, RESTART, SHUTDOWN, Foreign
from e0_ros.graph import Graph, Process, SimArguments
from e0_ros.launcher import Launcher
from e0_ros.resolve import GraphError, resolve

TESTS = Path(__file__).parent


def stub(name, on_death=SHUTDOWN, **settings):
    return Process(name, "stubs.stub_node", ("stubs.stub_node:StubConfig",), on_death=on_death, settings=settings)


class Run:
    """A launcher with what it printed."""

    def __init__(self, *processes, log_dir=None, arguments=None, foreign=()):
        self.lines = []
        path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
        self.launcher = Launcher(
            Graph("sim", arguments or SimArguments(), tuple(processes), foreign),
            log_dir,
            lambda name, text: self.lines.append((name, text)),
            {**os.environ, "PYTHONPATH": path},
        )

    def until(self, done, timeout_s=30.0):
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)

    def said(self, name, text):
        return lambda: any(n == name and text in t for n, t in self.lines)


def gone(pid):
    """Whether a process has ended; a zombie that its new parent has not fetched yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_clean_stop_interrupts_every_node_and_reads_its_last_words():
    run = Run(stub("a", says="up"), stub("b", says="up"))
    with run.launcher as launcher:
        run.until(lambda: run.said("a", "up")() and run.said("b", "up")())
        assert launcher.running()
    assert launcher.exit_status == 0
    assert run.said("a", "interrupted")()
    assert run.said("b", "interrupted")()


@pytest.mark.parametrize(("status", "expected"), [(3, 3), (0, 0)])
def test_a_death_ends_the_graph_with_its_status(status, expected):
    run = Run(stub("a", says="up"), stub("b", exit_after_s=0.0, exit_status=status))
    run.launcher.start()
    assert run.launcher.wait(30.0) == expected
    assert run.said("e0", f"b ended with status {status}; stopping the graph")()
    assert run.launcher.status()["a"] is not None


def test_a_process_tells_its_processor_time():
    run = Run(stub("busy", says="up"))
    with run.launcher as launcher:
        run.until(lambda: launcher.processor_s().get("busy", 0.0) > 0.0)
    assert launcher.processor_s() == {"busy": 0.0}


def test_a_kill_is_noticed_within_a_second():
    run = Run(stub("a", says="up"), stub("b", says="up"))
    with run.launcher as launcher:
        run.until(lambda: run.said("a", "up")() and run.said("b", "up")())
        os.kill(launcher.pid("b"), signal.SIGKILL)
        killed = time.monotonic()
        run.until(run.said("e0", "b ended with SIGKILL; stopping the graph"))
        assert time.monotonic() - killed < 5.0
    assert launcher.exit_status == 128 + signal.SIGKILL
    assert module.POLL_S <= 0.5


def test_a_node_that_may_be_missing_does_not_end_the_graph():
    run = Run(stub("a", says="up"), stub("b", CONTINUE, exit_after_s=0.0, exit_status=4))
    with run.launcher as launcher:
        run.until(run.said("e0", "b ended with status 4; the graph goes on without it"))
        assert launcher.running()
        assert launcher.status()["a"] is None
    assert launcher.exit_status == 4


@pytest.mark.parametrize("status", [5, 0])
def test_a_node_is_restarted_however_it_ended_but_not_for_ever(monkeypatch, status):
    monkeypatch.setattr(module, "RESTARTS", 2)
    monkeypatch.setattr(module, "RESTART_DELAY_S", 0.1)
    run = Run(stub("a", says="up"), stub("b", RESTART, says="again", exit_after_s=0.0, exit_status=status))
    run.launcher.start()
    assert run.launcher.wait(60.0) == status
    assert sum(text == "again" for _, text in run.lines) == 3
    assert run.said("e0", "restarting it (2 of 2 in a minute)")()


class Pretended:
    """A child without a process: it runs until it is signalled by `ends`, and notes what it hears in `heard`."""

    def __init__(self, name, heard, ends=signal.SIGINT):
        self.name, self.heard, self.ends, self.status = name, heard, ends, None

    def poll(self):
        return self.status

    def send(self, number):
        if self.status is None:
            self.heard.append((self.name, number, time.monotonic()))
        if number in (self.ends, signal.SIGKILL):
            self.status = 0

    def finish_output(self, timeout_s):
        pass


def test_a_restart_that_fails_is_told_and_ends_the_graph_with_1(monkeypatch):
    child = Pretended("a", [])
    children = iter([child])

    def make(*_):
        for first in children:
            return first
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(module, "Child", make)
    run = Run(stub("a", RESTART))
    run.launcher.start()
    child.status = 0
    assert run.launcher.wait(30.0) == 1
    assert run.lines[-1][1].startswith("cannot restart a process: [Errno"), run.lines


def test_a_log_on_a_full_disk_and_a_closed_terminal_cost_no_later_line(tmp_path):
    (tmp_path / "a.log").symlink_to("/dev/full")
    run = Run(stub("a", offspring=True, says="up"), log_dir=tmp_path)
    lines = run.launcher._echo

    def echo(name, text):
        lines(name, text)
        if text.startswith("offspring"):
            raise BrokenPipeError

    run.launcher._echo = echo
    with run.launcher:
        run.until(run.said("a", "up"))
    assert run.said("a", "interrupted")()
    assert not run.launcher._folder.exists(), "it has cleaned up"


def test_the_deaf_are_killed(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", ((signal.SIGINT, 0.1), (signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0)))
    run = Run(stub("a", says="up", deaf=True))
    with run.launcher as launcher:
        run.until(run.said("a", "up"))
    assert launcher.status()["a"] == -signal.SIGKILL
    assert launcher.exit_status == 0


@pytest.fixture
def stopped(monkeypatch):
    """Stops a graph of pretended processes, the node by the signal `ends`; what they heard, and when."""

    def stop(ends=signal.SIGINT, foreign=True, died=False, hurry=False):
        heard = []

        def make(name, *_):
            child = Pretended(name, heard, ends if name == "a" else signal.SIGINT)
            child.status = 0 if died and name == "franka" else None
            return child

        monkeypatch.setattr(module, "Child", make)
        monkeypatch.setattr(module, "foreign_command", lambda item: ["driver"])
        run = Run(stub("a"), foreign=(Foreign("franka", "launch", "bringup", "file"),) if foreign else ())
        run.launcher.start()
        run.launcher.request_stop(hurry)
        assert run.launcher.wait(30.0) == 0
        return heard

    return stop


def test_drivers_live_until_the_last_command_of_our_nodes_was_played_to_rest(stopped, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", ((signal.SIGINT, 0.05), (signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0)))
    monkeypatch.setattr(module, "REST_S", 0.2)
    heard = stopped(ends=signal.SIGTERM)
    assert [line[:2] for line in heard] == [("a", signal.SIGINT), ("a", signal.SIGTERM), ("franka", signal.SIGINT)]
    assert heard[2][2] - heard[1][2] >= 0.2


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"foreign": False}, [("a", signal.SIGINT)]),
        ({"died": True}, [("a", signal.SIGINT)]),
        ({"hurry": True}, [("a", signal.SIGKILL), ("franka", signal.SIGKILL)]),
    ],
    ids=["no driver", "it has died", "second Ctrl-C"],
)
def test_without_a_driver_or_in_a_hurry_nothing_is_waited_for(stopped, monkeypatch, how, expected):
    monkeypatch.setattr(module, "REST_S", 3600.0)
    assert [line[:2] for line in stopped(**how)] == expected


def test_nothing_is_left_behind():
    run = Run(stub("a", says="up", offspring=True))
    with run.launcher:
        run.until(run.said("a", "up"))
        pid = int(next(text for _, text in run.lines if text.startswith("offspring")).split()[1])
        assert not gone(pid)
    run.until(lambda: gone(pid))


def test_logs_hold_what_was_said(tmp_path):
    run = Run(stub("a", says="grüße"), log_dir=tmp_path / "log")
    with run.launcher:
        run.until(run.said("a", "grüße"))
    assert (tmp_path / "log" / "a.log").read_text().splitlines()[-2:] == ["grüße", "interrupted"]


def test_an_interpreter_that_is_not_there_is_an_error_and_starts_nothing():
    run = Run(stub("a"), arguments=SimArguments(python="/nowhere/python"))
    with pytest.raises(GraphError, match="/nowhere/python"):
        run.launcher.start()
    run.launcher.stop()


def test_foreign_packages_need_an_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(GraphError, match="franka_bringup comes with a ROS 2 install"):
        module.foreign_command(Foreign("franka", "launch", "franka_bringup", "franka.launch.py"))


def dies_with_its_killed_launcher(start):
    """Kills a Python process that starts something and prints its id and a word, and waits for its end; the word."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    with subprocess.Popen(
        [sys.executable, "-c", start], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        pid, word = process.stdout.readline().split()
        process.kill()
    deadline = time.monotonic() + 20.0
    while not gone(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return word


def test_nodes_die_with_a_killed_launcher():
    start = (
        "from e0_ros.launcher import Launcher\n"
        "from e0_ros.graph import *\n"
        "p = Process('a', 'stubs.stub_node', (), settings={'says': 'up'})\n"
        "l = Launcher(Graph('sim', SimArguments(), (p,)), echo=lambda n, t: print(l.pid('a'), t, flush=True))\n"
        "l.start()\nl.wait()\n"
    )
    assert dies_with_its_killed_launcher(start) == "up"


def test_drivers_die_with_a_killed_launcher():
    """As `ros2 launch` does: at SIGINT it ends what it has started, at SIGTERM itself alone."""
    launch = (
        "import signal, subprocess, sys, time\n"
        "driver = subprocess.Popen(['sleep', '600'])\n"
        "signal.signal(signal.SIGINT, lambda *_: (driver.terminate(), sys.exit()))\n"
        "print(driver.pid, 'driver', flush=True)\ntime.sleep(600)\n"
    )
    start = (
        "import os, sys, time\n"
        "from e0_ros.child import Child\n"
        f"Child('franka', [sys.executable, '-c', {launch!r}], os.environ, lambda n, t: print(t, flush=True))\n"
        "time.sleep(600)\n"
    )
    assert dies_with_its_killed_launcher(start) == "driver"


@pytest.mark.parametrize(
    ("name", "status", "fails"), [("controller", 0, False), ("controller", 1, True), ("policy", 0, True)]
)
def test_a_spawner_that_has_done_its_work_is_no_failed_start_but_a_node_that_has_ended_is(
    monkeypatch, name, status, fails
):
    monkeypatch.setattr(module, "foreign_command", lambda item: [sys.executable, "-c", f"raise SystemExit({status})"])
    monkeypatch.setattr(readiness, "wait_for_nodes", lambda *_: [])
    spawner = Foreign("controller", "run", "controller_manager", "spawner", (), CONTINUE)
    node = stub("policy", CONTINUE, exit_after_s=0.0 if name == "policy" else -1.0)
    run = Run(node, foreign=(spawner,) if name == "controller" else ())
    with run.launcher as launcher:
        run.until(lambda: launcher.status()[name] is not None and any(n == "e0" for n, _ in run.lines))
        if fails:
            with pytest.raises(GraphError, match=rf"{name} \(status {status}\) ended"):
                launcher.wait_ready(60.0)
        else:
            launcher.wait_ready(60.0)
            assert launcher.running()


@pytest.mark.ros
def test_ready_means_node_and_services():
    node = Process("policy", "stubs.stub_ros_node", ())
    run = Run(node)
    with run.launcher as launcher:
        launcher.wait_ready(60.0)
    assert launcher.exit_status == 0


@pytest.mark.ros
def test_what_is_missing_is_named():
    run = Run(stub("policy", says="no node at all"))
    with run.launcher as launcher, pytest.raises(GraphError, match=r"missing: node policy, service /e0/policy/reset"):
        launcher.wait_ready(1.0)


@pytest.mark.ros
def test_a_node_that_dies_at_start_is_named_at_once():
    run = Run(stub("policy", exit_after_s=0.0, exit_status=2))
    with run.launcher as launcher, pytest.raises(GraphError, match=r"policy \(status 2\)"):
        launcher.wait_ready(60.0)


@pytest.mark.ros
def test_the_simulated_graph_gets_ready_and_ends_when_its_executor_is_killed(tmp_path):
    """The real nodes with the plant: what is left stops within the launcher's patience and the status says why."""
    for node in ("sim.bridge", "e0_ros.nodes.chunk_executor", "e0_ros.nodes.episode_recorder"):
        pytest.importorskip(node, reason=f"{node} is not here")
    values = {"simulator": "fr3_plant", "source": "external", "bag_dir": str(tmp_path / "bags")}
    lines = []
    with Launcher(resolve("sim", values), tmp_path / "log", lambda *line: lines.append(line)) as launcher:
        launcher.wait_ready(120.0)
        os.kill(launcher.pid("chunk_executor"), signal.SIGKILL)
        assert launcher.wait(60.0) == 128 + signal.SIGKILL
    assert ("e0", "chunk_executor ended with SIGKILL; stopping the graph") in lines
    assert {name: status for name, status in launcher.status().items() if name != "chunk_executor"} == {
        "bridge": 0,
        "observation_sync": 0,
        "episode_recorder": 0,
    }
