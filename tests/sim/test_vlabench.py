"""VLABench's adapter on a stand-in that has the names of its public code (OpenMOSS/VLABench at 47b04bf).

`load_env(task, ..., episode_config, random_init, **kwargs)` is envs/__init__.py's; `reset`, `step`, `render(**kwargs)`
and `robot` are LM4ManipDMEnv's (envs/dm_env.py); `control_timestep`, `physics` and `close` dm_control's; `get_qpos`,
`get_qvel`, `end_effector_site` and `mjcf_model` are Franka's (robots/single_arm); `get_instruction` LM4ManipBaseTask's.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, Observation
from e0_ros.config import ConfigError
from sim import vlabench
from sim.direct import DirectLoop
from sim.raw import RawLoop
from sim.simulators import make_adapter

HOME = np.array([0.0, -1.04, 0.0, -2.56, 0.0, 1.55, -2.32])


class Physics:
    """Seven joints and two fingers that are where they were sent to."""

    def __init__(self) -> None:
        self.qpos = np.append(HOME, [0.04, 0.04])
        self.model = types.SimpleNamespace(cam_fovy=np.full(4, 45.0))
        self.data = types.SimpleNamespace(cam_xpos=np.zeros((4, 3)), cam_xmat=np.tile(np.eye(3).ravel(), (4, 1)))
        self.data.cam_xpos[2] = [0.5, 0.0, 1.0]

    def bind(self, element: str) -> types.SimpleNamespace:
        if element.startswith("finger_joint"):
            return types.SimpleNamespace(qpos=self.qpos[6 + int(element[-1])])
        return types.SimpleNamespace(xpos=np.array([0.0, 0.0, len(element) / 10]), xmat=np.eye(3).ravel())


class Robot:
    mjcf_model = types.SimpleNamespace(find=lambda kind, name: name)
    end_effector_site = "end_effector"

    def get_qpos(self, physics: Physics) -> np.ndarray:
        return physics.qpos[:7].copy()

    def get_qvel(self, physics: Physics) -> np.ndarray:
        return np.zeros(7)


class Env:
    """Is over when joint 1 has come to 0.1 rad."""

    def __init__(self, task: str, episode_config: dict) -> None:
        self.physics, self.robot, self.config, self.closed = Physics(), Robot(), episode_config, False
        self.task = types.SimpleNamespace(get_instruction=lambda: f"do {task}")
        self.actions: list[np.ndarray] = []

    def reset(self) -> None:
        self.physics.qpos[:7] = HOME

    def control_timestep(self) -> float:
        return 0.1

    def step(self, action: np.ndarray) -> types.SimpleNamespace:
        assert action.shape == (9,)
        self.actions.append(action.copy())
        self.physics.qpos[:] = action
        return types.SimpleNamespace(last=lambda: bool(self.physics.qpos[0] >= 0.1))

    def render(self, camera_id: int, height: int, width: int) -> np.ndarray:
        return np.full((height, width, 3), camera_id, np.uint8)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Env]:
    """VLABench at `VLABENCH_ROOT`, and the environments that it loads."""
    made: list[Env] = []

    def load_env(task, robot="franka", config=None, time_limit=float("inf"), reset_wait_step=10, episode_config=None,
                 random_init=False, **kwargs):  # fmt: skip
        assert not random_init and kwargs == {"eval": False, "run_mode": "eval"}
        made.append(Env(task, episode_config))
        return made[-1]

    for name in ("VLABench", "VLABench.tasks", "VLABench.robots", "VLABench.envs"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["VLABench.envs"].load_env = load_env  # type: ignore[attr-defined]
    (tmp_path / "assets" / "obj").mkdir(parents=True)
    track = tmp_path / vlabench.TRACK
    track.parent.mkdir(parents=True)
    track.write_text(json.dumps({task: [{"scene": i} for i in range(3)] for task in vlabench.TASKS}))
    monkeypatch.setenv("VLABENCH_ROOT", str(tmp_path))
    monkeypatch.setattr(vlabench, "find_spec", lambda name: object())
    vlabench._track.cache_clear()
    return made


def test_what_is_missing_is_named_with_the_cure(loaded: list[Env], tmp_path: Path, monkeypatch) -> None:
    assert vlabench.missing() == ""
    (tmp_path / "assets" / "obj").rmdir()
    assert "its objects are missing" in vlabench.missing() and "download_assets" in vlabench.missing()
    monkeypatch.setenv("VLABENCH_ROOT", "")
    assert "VLABENCH_ROOT is ''" in vlabench.missing()
    with pytest.raises(ConfigError, match="VLABENCH_ROOT"):
        vlabench.VlabenchAdapter()
    monkeypatch.setattr(vlabench, "find_spec", lambda name: None)
    assert "VLABench is not installed: clone" in vlabench.missing()


def test_a_scene_of_the_track_is_loaded_and_its_conditions_are_success(loaded: list[Env]) -> None:
    adapter = vlabench.VlabenchAdapter(("base", "wrist"), 32, 24)
    scene = adapter.reset("select_toy", 2)
    assert (scene.instruction, scene.max_steps, loaded[0].config) == ("do select_toy", 200, {"scene": 2})
    assert adapter.reset("select_poker", 0).max_steps == 100 and loaded[0].closed
    position, velocity, _ = adapter.joint_state()
    np.testing.assert_array_equal(position, HOME)
    adapter.start_render()
    pictures = adapter.finish_render()
    assert {v: (p.shape, p[0, 0, 0]) for v, p in pictures.items()} == {
        "base": ((24, 32, 3), 2),
        "wrist": ((24, 32, 3), 3),
    }
    assert {v: c.parent for v, c in adapter.cameras().items()} == {"base": "base", "wrist": "flange"}
    np.testing.assert_allclose(adapter.cameras()["base"].pose[:3, 3], [0.5, 0.0, 0.5])
    adapter.act(np.append(HOME, 0.5))
    np.testing.assert_allclose(loaded[1].actions[-1], np.append(HOME, [0.02, 0.02]))
    assert adapter.gripper_opening() == 0.5 and not adapter.privileged().success
    adapter.step(HOME + 0.1, velocity, 1.0)
    assert adapter.privileged().success
    adapter.stand()
    assert adapter.privileged().success and len(loaded[1].actions) == 2, "a solved scene is not stepped on"


def test_what_is_unknown_is_refused(loaded: list[Env]) -> None:
    adapter = vlabench.VlabenchAdapter(("base",), 16, 16)
    for task, seed, text in (("select_tyo", 0, "select_toy"), ("select_toy", 3, "the scenes 0 to 2")):
        with pytest.raises(ValueError, match=text):
            adapter.reset(task, seed)
    with pytest.raises(ConfigError, match="no view 'bsae'"):
        vlabench.VlabenchAdapter(("bsae",))
    adapter.reset("select_toy", 0)
    with pytest.raises(ValueError, match="8 numbers"):
        adapter.act(np.zeros(9))


class Reach:
    """Joint 1 on by 0.01 rad a row, from where the arm is."""

    sent = 0

    def looks(self, stamp_ns: int) -> bool:
        return False

    def answer(self, observation: Observation, in_force: object) -> ActionChunk:
        self.sent += 1
        steps = 0.01 * np.arange(1, 13)[:, None] * np.eye(7)[0]
        rows = np.column_stack((observation.joint_positions + steps, np.ones(12)))
        names = {"embodiment": "panda", "joint_names": load_embodiment("panda").joint_names}
        return ActionChunk(rows, observation.stamp_ns, 100_000_000, "policy", "s", self.sent, **names)


def test_joint_rows_run_by_its_own_protocol_and_through_the_executor(loaded: list[Env]) -> None:
    RawLoop(vlabench.VlabenchAdapter(("base",), 16, 16)).run("select_toy", 0, Reach(), max_steps=5)
    np.testing.assert_allclose([a[0] for a in loaded[-1].actions], 0.01 * np.arange(1, 6), atol=1e-12)
    adapter = make_adapter("vlabench", ("base",), (16, 16))
    episode = DirectLoop(adapter, "select_toy").run("select_toy", 1, Reach(), max_steps=60)
    assert (episode.success, episode.refused, episode.violations) == (True, 0, 0)
