import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from e0_ros import environment
from e0_ros.bootstrap import __main__ as command
from e0_ros.bootstrap import machine, plan, stages
from e0_ros.bootstrap.machine import Missing
from e0_ros.bootstrap.progress import Progress, StageError

ROOT = Path(__file__).resolve().parents[1]


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def fake_python(folder, version, name=None):
    return script(folder / (name or f"python{version}"), f"echo '{version} /include'")


def test_default_interpreter_is_taken_if_it_fits():
    assert machine.find_python(sys.executable).path == sys.executable


def test_too_old_and_broken_interpreters_are_passed_over(tmp_path, monkeypatch):
    fake_python(tmp_path, "3.10")
    script(tmp_path / "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    old = fake_python(tmp_path, "3.9", "python3")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.find_python(old).version == (3, 10)


def test_no_fitting_interpreter_names_those_found_and_the_cure(tmp_path, monkeypatch):
    old, new = fake_python(tmp_path, "3.9", "python3"), fake_python(tmp_path, "3.13", "python3.12")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"(?s)3\.12 is needed; found 3\.9, 3\.13.*cure: uv python install 3\.12"):
        machine.find_python(old)
    script(tmp_path / "apt-cache", '[ "$2" = python3.11 ]')
    with pytest.raises(Missing, match=r"cure: .*apt-get install -y python3\.11 python3\.11-venv python3\.11-dev"):
        machine.find_python(old)
    assert machine.probe(new).version == (3, 13)


def test_the_installs_own_interpreter_is_found_by_importing_its_rclpy(tmp_path, monkeypatch):
    fake_python(tmp_path, "3.12")
    script(tmp_path / "python3.11", 'case "$2" in *rclpy*) exit 1;; esac; echo "3.11 /include"')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.find_python(str(tmp_path / "python3.11"), "rclpy").version == (3, 12)


def test_other_machines_are_told_to_use_an_install(monkeypatch):
    for computer, system in (("aarch64", "Linux"), ("x86_64", "Darwin")):
        with pytest.raises(Missing, match=rf"(?s){system} on {computer}.*source a ROS 2 install"):
            machine.check_platform(computer, system)
    monkeypatch.setattr(machine.platform, "libc_ver", lambda: ("glibc", "2.27"))
    with pytest.raises(Missing, match=r"glibc 2\.28"):
        machine.check_platform("x86_64", "Linux")


def test_missing_compilers_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"(?s)no C and no C\+\+ compiler.*install -y g\+\+"):
        machine.check_compiler()
    script(tmp_path / "gcc", "")
    with pytest.raises(Missing, match=r"no C\+\+ compiler"):
        machine.check_compiler()
    script(tmp_path / "clang++", "")
    machine.check_compiler()


def test_full_disk_is_noticed_before_anything_is_written(tmp_path):
    machine.check_disk(tmp_path, 1)
    with pytest.raises(Missing, match=r"(?s)GB of free disk are needed.*cure: free some space"):
        machine.check_disk(tmp_path, 10**18)


def test_missing_venv_module_and_headers_are_named(tmp_path):
    without_venv = machine.Python(script(tmp_path / "a", "exit 1"), (3, 11), tmp_path)
    with pytest.raises(Missing, match=r"install -y python3\.11-venv"):
        machine.check_python(without_venv)
    with pytest.raises(Missing, match="no C headers"):
        machine.check_python(machine.Python(script(tmp_path / "b", "exit 0"), (3, 11), tmp_path))


def test_extras_are_those_of_setup_cfg():
    everything = plan.requirements(ROOT, ["sim", "train", "dev", "ros"])
    assert "mani_skill" in everything
    assert "torch" in plan.requirements(ROOT, ["train"])
    robot = plan.requirements(ROOT, ["ros"])
    assert "ros-rclpy[fastrtps]" in robot
    assert not {"torch", "mani_skill", "transformers", "pytest"} & set(robot)
    with pytest.raises(ValueError, match="no extra 'simm'; there are dev, libero"):
        plan.requirements(ROOT, ["simm"])


def test_what_goes_in_without_its_own_requirements_belongs_to_an_extra():
    assert plan.bare_requirements(ROOT, ["libero"]) == plan.bare_requirements(ROOT, ["dev", "libero"])
    assert "hf-libero" in plan.bare_requirements(ROOT, ["dev"]) and plan.bare_requirements(ROOT, ["sim", "train"]) == []
    assert not {"hf-libero", "bddl"} & set(plan.requirements(ROOT, ["dev"])), "they would bring torch's trainers along"


def test_every_requirement_is_pinned():
    lines = (ROOT / plan.CONSTRAINTS).read_text().splitlines()
    pinned = {re.split("==", line)[0].lower().replace("_", "-") for line in lines if "==" in line}
    extras = plan.extras_of(ROOT)
    for extra, wanted in {**extras, "bare": plan.bare_requirements(ROOT, [extra for extra in extras if extra])}.items():
        for line in wanted:
            name = re.split(r"[\[=<>]", line)[0].lower().replace("_", "-")
            assert name in pinned | {"e0-ros"}, f"{line} of extra {extra!r} has no line in {plan.CONSTRAINTS}"


def test_messages_depend_on_what_generates_them_and_on_no_other_pin():
    pins = plan.build_pins(ROOT)
    assert {"ros-rclpy==9.1.2", "numpy==1.26.4"} <= set(pins)
    assert not [pin for pin in pins if pin.startswith(("torch", "pytest"))]


def test_key_follows_every_file_and_fact(tmp_path):
    (tmp_path / "msgs").mkdir()
    (tmp_path / "msgs/a.msg").write_text("int32 a\n")
    before = plan.key(tmp_path, ["msgs"], "3.11")
    assert before == plan.key(tmp_path, ["msgs"], "3.11")
    assert before != plan.key(tmp_path, ["msgs"], "3.12")
    (tmp_path / "msgs/a.msg").write_text("int64 a\n")
    assert before != plan.key(tmp_path, ["msgs"], "3.11")


def test_stamps_survive_and_a_torn_file_means_start_again(tmp_path):
    plan.Stamps(tmp_path / "s" / "stamps.json").finish("packages", "k")
    assert plan.Stamps(tmp_path / "s" / "stamps.json").fresh("packages", "k")
    assert not plan.Stamps(tmp_path / "s" / "stamps.json").fresh("packages", "other")
    (tmp_path / "s" / "stamps.json").write_text('{"packages": ')
    assert not plan.Stamps(tmp_path / "s" / "stamps.json").fresh("packages", "k")


def test_extras_add_up_and_wheels_only_without_an_install(tmp_path):
    stamps = plan.Stamps(tmp_path / "stamps.json")
    stamps.finish("extras", "dev,ros")
    assert plan.wished_extras("sim", stamps, wheels=True) == ["dev", "ros", "sim"]
    assert plan.wished_extras("sim", stamps, wheels=False) == ["dev", "sim"]


def test_two_set_ups_at_once_are_refused(tmp_path):
    with plan.only_one(tmp_path / "lock"), pytest.raises(ValueError, match="another set-up is running"):  # noqa: SIM117
        with plan.only_one(tmp_path / "lock"):
            pass
    with plan.only_one(tmp_path / "lock"):
        pass


def test_a_failed_command_shows_its_last_lines_and_logs_everything(tmp_path):
    progress = Progress(tmp_path / "log", 1)
    with pytest.raises(StageError, match=r"(?s)status 3.*line 19\n"):
        progress.run(["sh", "-c", "for i in $(seq 0 19); do echo line $i; done; exit 3"])
    assert "line 0\n" in (tmp_path / "log").read_text()


def test_likely_cures_are_read_from_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("NewConnectionError('Failed to establish a new connection')")
    assert "network" in command.hint(log)
    log.write_text("OSError: [Errno 28] No space left on device")
    assert "disk" in command.hint(log)
    assert "run it again" in command.hint(tmp_path / "none")


NO_ROS = environment.Ros(environment.NONE)
JAZZY = environment.Ros(environment.INSTALL, "/opt/ros/jazzy", "jazzy")


@pytest.fixture
def able(monkeypatch):
    """A machine that has whatever set-up asks of it."""
    for check in ("check_disk", "check_python", "check_platform", "check_compiler"):
        monkeypatch.setattr(machine, check, lambda *_: None)
    monkeypatch.setattr(machine, "find_python", lambda *_: machine.Python("python3", (3, 11), Path("/include")))


class Recorded(stages.Setup):
    """Set-up whose stages only note that they ran; `broken` fails once."""

    broken = ""

    def __init__(self, root, ran, ros=NO_ROS):
        super().__init__(ROOT, root / "venv", root / "state", ros, ["dev", "ros"])
        self.stages = [(name, key, lambda n=name: self._note(n, ran)) for name, key, _ in self.stages]

    def _note(self, name, ran):
        if name == Recorded.broken:
            Recorded.broken = ""
            raise KeyboardInterrupt
        ran.append(name)
        self.python.parent.mkdir(parents=True, exist_ok=True)
        self.python.touch()


def test_interrupted_set_up_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "check_disk", lambda *_: None)
    monkeypatch.setattr(machine, "check_python", lambda *_: None)
    monkeypatch.setattr(machine, "check_platform", lambda *_: None)
    ran = []
    Recorded.broken = "messages"
    with pytest.raises(KeyboardInterrupt):
        Recorded(tmp_path, ran).run(sys.executable)
    assert ran == ["environment", "packages", "libraries"]
    setup = Recorded(tmp_path, ran)
    assert not setup.is_complete()
    setup.run(sys.executable)
    assert ran == ["environment", "packages", "libraries", "messages", "project"]
    assert Recorded(tmp_path, ran).is_complete()
    assert "[2/5] packages       done before" in capsys.readouterr().out
    setup.python.unlink()
    assert not Recorded(tmp_path, ran).is_complete()


def fake_environment(root, stale=""):
    """Set-up whose environment is Python 3.11, with every stage up to date but `stale`."""
    setup = stages.Setup(ROOT, root / "venv", root / "state", NO_ROS, ["dev", "ros"])
    fake_python(root / "venv/bin", "3.11", "python")
    (root / "venv/lib/python3.11/site-packages").mkdir(parents=True)
    for name, key, _ in setup.stages:
        setup.stamps.finish(name, "" if name == stale else key)
    return setup


def test_a_stale_stage_asks_the_environments_own_interpreter_and_looks_for_no_other(tmp_path, able, monkeypatch):
    monkeypatch.setattr(machine, "find_python", lambda *_: pytest.fail("it looked for another"))
    setup = fake_environment(tmp_path, stale="project")
    monkeypatch.setattr(setup, "_pip", lambda *_: None)
    setup.run(sys.executable)
    assert (tmp_path / "venv/lib/python3.11/site-packages/e0_venv_start.py").is_file() and setup.is_complete()


def test_another_version_that_is_asked_for_is_refused_with_the_way_to_it(tmp_path):
    setup = fake_environment(tmp_path)
    setup.require_version(fake_python(tmp_path, "3.11"))
    with pytest.raises(Missing, match=r"(?s)has Python 3\.11, and .*python3\.12 is 3\.12.*cure: rm -rf .*venv"):
        setup.require_version(fake_python(tmp_path, "3.12"))
    setup.python.unlink()
    setup.require_version(fake_python(tmp_path, "3.12"))


@pytest.mark.parametrize("recorded", [True, False], ids=["", "made by a version that did not write it down"])
@pytest.mark.parametrize(
    ("made", "shell", "cure"), [(NO_ROS, JAZZY, "sources none"), (JAZZY, NO_ROS, "sources that install")]
)
def test_an_environment_that_was_made_for_another_ros_is_left_as_it_is(tmp_path, able, made, shell, cure, recorded):
    ran = []
    Recorded(tmp_path, ran, made).run(sys.executable)
    if made == NO_ROS:
        (tmp_path / "venv/lib/python3.11/site-packages/ros_wheels_bootstrapper").mkdir(parents=True)
    setup = Recorded(tmp_path, ran, shell)
    if not recorded:
        setup.stamps.finish("source", "")
    del ran[:]
    with pytest.raises(Missing, match=rf"(?s)was made for .*this shell has {shell}.*{cure}.*rm -rf"):
        setup.run(sys.executable)
    assert not ran and Recorded(tmp_path, ran, made).is_complete()
    setup.python.unlink()
    Recorded(tmp_path, ran, shell).run(sys.executable)
    assert ran[0] == "environment", "one that is not there any more is made for this shell"


def test_an_environment_of_another_place_is_made_anew(tmp_path, able):
    ran = []
    Recorded(tmp_path / "a", ran).run(sys.executable)
    (tmp_path / "a").rename(tmp_path / "b")
    del ran[:]
    Recorded(tmp_path / "b", ran).run(sys.executable)
    assert ran[0] == "environment"


def test_it_runs_as_a_bare_script_without_any_package():
    """Isolated (-I) and without site-packages (-S): the standard library alone."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from e0_ros.bootstrap.__main__ import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert "--extras" in done.stdout, done.stderr


def installed(site, name, text):
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    if text is not None:
        (folder / "RECORD").write_text(text.replace("@", folder.name))


def test_a_package_whose_installation_was_cut_short_is_installed_again(tmp_path):
    installed(tmp_path, "whole", "a.py,,\n@/INSTALLER,sha256=x,4\n@/RECORD,,\n")
    installed(tmp_path, "copied", "a.py,,\n@/RECORD,,\n")  # the wheel's own RECORD: pip had not written its last one
    installed(tmp_path, "begun", None)
    assert [folder.name for folder in plan.unfinished(tmp_path)] == ["begun-1.0.dist-info", "copied-1.0.dist-info"]


def test_what_pip_itself_leaves_behind_is_whole():
    site = Path(sysconfig.get_paths()["purelib"])
    written = {f.parent.name for f in site.glob("*.dist-info/INSTALLER") if f.read_text().strip() == "pip"}
    assert written and not written & {folder.name for folder in plan.unfinished(site)}


INTERRUPTED = """
import sys
from pathlib import Path
from e0_ros.bootstrap.progress import Progress
progress = Progress(Path(sys.argv[1]), 1)
command = ["sh", "-c", "trap '' INT; echo begun; exec sleep 600"]
try:
    progress.stage("packages", False, lambda: progress.run(command))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_a_deaf_command_too_and_says_interrupted(tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", INTERRUPTED, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as process:
        deadline = time.monotonic() + 60.0
        while not (log.is_file() and "begun" in log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and output.rstrip().endswith("interrupted")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
