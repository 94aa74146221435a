"""The stages of set-up. Each has a key of what it depends on and is skipped while that key is unchanged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from e0_ros.bootstrap import interface_package, machine, plan
from e0_ros.bootstrap.progress import Progress
from e0_ros.environment import INSTALL, Ros, has_wheels, sourced

MESSAGES = ("e0_msgs", "e0_ros/bootstrap/tf2_msgs")
"""Message packages to build, unless an install has them: ours, and what the wheels lack."""
LIBRARIES = "e0_ros.bootstrap.libraries"
_WHEELS = "ROS 2 from wheels"
_UNWANTED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "CONDA_PREFIX")


class Setup:
    """Set-up of one virtual environment.

    Args:
        root: the checkout.
        venv: the environment to make.
        state: folder of the log, the stamps and the build of the messages.
        ros: what the shell has; with a sourced install no ROS 2 wheel is installed.
        extras: extras of setup.cfg.

    """

    def __init__(self, root: Path, venv: Path, state: Path, ros: Ros, extras: list[str]) -> None:
        self.root, self.venv, self.state, self.ros, self.extras = root, venv, state, ros, extras
        self.python = venv / "bin" / "python"
        self.source = str(ros) if ros.kind == INSTALL else _WHEELS
        self.stamps = plan.Stamps(state / "stamps.json")
        packages = plan.requirements(root, extras) + plan.bare_requirements(root, extras)
        self.stages: list[tuple[str, str, Callable[[], None]]] = [
            ("environment", plan.key(root, [], ros.kind, ros.prefix, str(venv)), self._make_venv),
            ("packages", plan.key(root, [plan.CONSTRAINTS], *packages), self._install_packages),
            ("libraries", plan.key(root, ["e0_ros/bootstrap/libraries.py"], *packages), self._module(LIBRARIES)),
            ("messages", plan.key(root, MESSAGES, *plan.build_pins(root), str(root)), self._build_messages),
            ("project", plan.key(root, ["setup.cfg", "e0_ros/bootstrap/venv_start.py"], str(root)), self._install_self),
        ]
        self.packages = [p for p in MESSAGES if ros.kind != INSTALL or not sourced(Path(p).name)]
        if not self.packages:
            self.stages = [stage for stage in self.stages if stage[0] != "messages"]
        if "sim" in extras:
            for name in ("vulkan", "robot_visuals"):
                self.stages.append((name, plan.key(root, [f"sim/{name}.py"]), self._module(f"sim.{name}")))

    def is_complete(self) -> bool:
        """Whether every stage is up to date and the environment's interpreter is there."""
        return all(self._is_fresh(name, key) for name, key, _ in self.stages)

    def run(self, default_python: str) -> None:
        """Do what is not done yet.

        Raises:
            Missing: the machine lacks something.
            StageError: a command failed.

        """
        self._check_source()
        installed = self.ros.kind == INSTALL
        if not installed:
            machine.check_platform()
        machine.check_compiler()
        if not self.stamps.get("packages"):
            machine.check_disk(self.root)
        own = self._own_python() if self._is_fresh(*self.stages[0][:2]) else None
        self.base = own or machine.find_python(default_python, "rclpy" if installed else "")
        machine.check_python(self.base)
        print(f"set-up: Python {self.base.name} ({self.base.path}), {self.source}, into {self.venv}", flush=True)
        self.progress = Progress(self.state / "log", len(self.stages))
        self.stamps.finish("source", self.source)
        for name, key, work in self.stages:
            self.progress.stage(name, self._is_fresh(name, key), work)
            self.stamps.finish(name, key)

    def require_version(self, python: str) -> None:
        """Refuse an environment that was made with another version of Python than that of an interpreter asked for.

        Raises:
            Missing: it was.

        """
        own, asked = self._own_python(), machine.probe(python)
        if own and asked and own.version != asked.version:
            raise machine.Missing(
                f"{self.venv} has Python {own.name}, and {python} is {asked.name}",
                f"rm -rf {self.venv} and the same again, to make it with that one; or leave PYTHON out",
            )

    def _own_python(self) -> machine.Python | None:
        """The environment's interpreter; None if there is none that runs."""
        return machine.probe(str(self.python), self._environ())

    def _is_fresh(self, name: str, key: str) -> bool:
        return self.python.exists() and self.stamps.fresh(name, key)

    def _check_source(self) -> None:
        """Keep an environment that is in use, also by a graph that runs, from being made anew for this shell's ROS 2.

        Raises:
            Missing: it was made for another one.

        """
        name, key, _ = self.stages[0]
        if not self.python.exists() or not self.stamps.get(name) or self._is_fresh(name, key):
            return
        unwritten = _WHEELS if has_wheels(str(self.venv)) else "a ROS 2 install"
        made_for = self.stamps.get("source") or unwritten
        if made_for != self.source:
            shell = "sources none" if made_for == _WHEELS else "sources that install"
            raise machine.Missing(
                f"{self.venv} was made for {made_for}, and this shell has {self.ros}",
                f"a shell that {shell}; or rm -rf {self.venv} and the same again, to make it for this shell's",
            )

    def _environ(self) -> dict[str, str]:
        """This shell's environment, without what would lead the new interpreter elsewhere."""
        keep = self.ros.kind == INSTALL
        environ = {k: v for k, v in os.environ.items() if k not in _UNWANTED or (keep and k == "PYTHONPATH")}
        return {**environ, "PYTHONNOUSERSITE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}

    def _pip(self, *arguments: str) -> None:
        command = [str(self.python), "-m", "pip", "install", "--progress-bar", "off", *arguments]
        self.progress.run(command, self._environ(), self.root)

    def _make_venv(self) -> None:
        self.stamps.clear()
        self.stamps.finish("source", self.source)
        options = ["--system-site-packages"] if self.ros.kind == INSTALL else []
        command = [self.base.path, "-m", "venv", "--clear", *options, str(self.venv)]
        self.progress.run(command, self._environ(), self.root)
        self._pip("-c", plan.CONSTRAINTS, "pip", "setuptools", "wheel")

    def _install_packages(self) -> None:
        site = self.venv / "lib" / f"python{self.base.name}" / "site-packages"
        for unfinished in plan.unfinished(site):
            shutil.rmtree(unfinished)
        self._pip("-c", plan.CONSTRAINTS, *plan.requirements(self.root, self.extras))
        if bare := plan.bare_requirements(self.root, self.extras):
            self._pip("--no-deps", "-c", plan.CONSTRAINTS, *bare)
        self.stamps.finish("extras", ",".join(self.extras))

    def _build_messages(self) -> None:
        for package in self.packages:
            folder = self.state / Path(package).name
            interface_package.build(
                self.root / package, folder, self.venv, self.python, self.ros.kind, self._environ(), self.progress.run
            )

    def _install_self(self) -> None:
        self._pip("--no-deps", "--no-build-isolation", "-e", ".")
        site = self.venv / "lib" / f"python{self.base.name}" / "site-packages"
        shutil.copyfile(Path(__file__).with_name("venv_start.py"), site / "e0_venv_start.py")
        (site / "e0_venv_start.pth").write_text("import e0_venv_start\n", encoding="utf-8")

    def _module(self, name: str) -> Callable[[], None]:
        def work() -> None:
            self.progress.run([str(self.python), "-m", name], self._environ(), self.root)

        return work
