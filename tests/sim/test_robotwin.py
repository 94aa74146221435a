"""RoboTwin's adapter on a stand-in that has the names of its public code (RoboTwin-Platform/RoboTwin at cf47ab5).

`load_task_args`, `class_decorator` and `build_instruction` are scripts/eval_policy_xpolicylab.py's; `setup_demo`,
`play_once`, `check_success`, `plan_success`, `eval_success`, `take_action(action, action_type)`, `get_obs`,
`set_instruction` and `close_env` are those of envs/_base_task.py and of its tasks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, Representation
from e0_ros.config import ConfigError
from sim import robotwin
from sim.direct import DirectLoop
from sim.robotwin import RoboTwinAdapter
from sim.suites import SUITES

SCRIPT = """
import os
import numpy as np

assert os.path.isdir("env_cfg"), "RoboTwin's paths are relative to its root"


def load_task_args(usr_args):
    name = usr_args["task_name"]
    joints = 7 if name != "lift_pot" else 6
    return {"task_name": name, "eval_instruction": "seen", "render_freq": 3, "arms": joints}, "x"


class Task:
    made = []

    def setup_demo(self, now_ep_num, seed, is_test, **args):
        assert is_test and args["eval_mode"] and args["render_freq"] == 0
        if seed == 100_009:
            raise RuntimeError("Objects is unstable")
        self.seed, self.actions, self.eval_success, self.plan_success = seed, [], False, True
        self.q = np.tile(np.append(np.full(args["arms"], 0.2), 1.0), 2)
        Task.made.append(self)

    def play_once(self):
        self.played = True
        return {"info": {"{A}": "hammer"}}

    def check_success(self):
        return self.seed != 100_008

    def set_instruction(self, instruction=None):
        self.instruction = instruction

    def get_obs(self):
        camera = {"rgb": np.full((24, 32, 3), 7, np.uint8), "intrinsic_cv": np.diag([40.0, 40.0, 1.0]),
                  "extrinsic_cv": np.eye(4)[:3]}
        pose = [0.1, 0.2, 0.3, 1.0, 0.0, 0.0, 0.0]
        return {"observation": dict.fromkeys(("head_camera", "left_camera", "right_camera"), camera),
                "endpose": {"left_endpose": pose, "right_endpose": pose}, "joint_action": {"vector": self.q.copy()}}

    def take_action(self, action, action_type="qpos"):
        assert action_type == "qpos" and action.shape == self.q.shape
        self.actions.append(action.copy())
        self.q[:] = action
        self.eval_success |= bool(action[0] > 0.5)

    def close_env(self, clear_cache=False):
        self.closed = True


def class_decorator(task_name):
    return Task()


def build_instruction(args, episode_info, instruction_type, test_num):
    return f"{args['task_name']} with the {episode_info['info']['{A}']}, {instruction_type}"
"""


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """RoboTwin at `ROBOTWIN_ROOT`, with a script of its name."""
    import sys

    for folder in ("scripts", "assets/embodiments", "env_cfg/task_config"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / robotwin._SCRIPT).write_text(SCRIPT)
    (tmp_path / "env_cfg/task_config/e0.yml").write_text("embodiment: [franka-panda, franka-panda, 0.8]\n")
    (tmp_path / robotwin._LIMITS).write_text("beat_block_hammer: 400\nlift_pot: 400\n")
    monkeypatch.setenv("ROBOTWIN_ROOT", str(tmp_path))
    monkeypatch.delenv("ROBOTWIN_TASK_CONFIG", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("eval_policy_xpolicylab", None)


def made() -> list:
    import sys

    return sys.modules["eval_policy_xpolicylab"].Task.made


def test_what_is_missing_is_named_with_the_cure(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert robotwin.missing() == "" and "untested: its adapter" in SUITES["robotwin"].told()
    monkeypatch.setenv("ROBOTWIN_TASK_CONFIG", "mine")
    assert "no task configuration 'mine'" in robotwin.missing()
    (root / "assets/embodiments").rmdir()
    assert "its assets are missing" in robotwin.missing() and "_download_assets.sh" in robotwin.missing()
    with pytest.raises(ConfigError, match="assets are missing"):
        RoboTwinAdapter()


def test_a_scene_is_solved_by_the_expert_then_built_again(root: Path) -> None:
    adapter = RoboTwinAdapter(width_px=32, height_px=32)
    before = Path.cwd()
    scene = adapter.reset("beat_block_hammer", 5)
    assert (scene.instruction, scene.max_steps) == ("beat_block_hammer with the hammer, seen", 400)
    assert [(t.seed, hasattr(t, "played")) for t in made()] == [(100_005, True)] * 2 and Path.cwd() == before
    assert adapter.joint_state()[0].shape == (16,) and adapter.gripper_opening() == 1.0
    pictures = adapter.finish_render()
    assert set(pictures) == {"base", "left_wrist", "right_wrist"} and pictures["base"].shape == (32, 32, 3)
    assert (pictures["base"][:4] == 0).all() and (pictures["base"][4:28] == 7).all(), "padded, not stretched"
    assert adapter.cameras()["base"].intrinsics[1, 2] == pytest.approx(3.5)
    np.testing.assert_allclose(adapter.privileged().poses["left_tcp"], [0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 1.0])
    row = np.full(16, 0.6)
    adapter.act(row)
    assert adapter.privileged().success and adapter.gripper_opening() == 0.6
    adapter.stand()
    np.testing.assert_array_equal(made()[-1].actions[-1], row)
    adapter.close()
    assert made()[-1].closed


def test_scenes_that_its_evaluation_skips_and_other_arms_are_refused(root: Path) -> None:
    adapter = RoboTwinAdapter(("base",), 48, 32)
    for task, seed, text in (
        ("beat_block_hammer", 8, "skips beat_block_hammer seed 8: its expert does not solve it"),
        ("beat_block_hammer", 9, "Objects is unstable"),
        ("beat_blok_hammer", 0, "beat_block_hammer"),
        ("lift_pot", 0, "the arms have 14 joints and grippers; needed are left_joint1.*franka-panda"),
    ):
        with pytest.raises(ValueError, match=text):
            adapter.reset(task, seed)
    adapter.reset("beat_block_hammer", 0)
    assert adapter.finish_render()["base"].shape == (32, 48, 3)
    with pytest.raises(ValueError, match="16 numbers"):
        adapter.act(np.zeros(14))


def test_sixteen_columns_go_through_executor_and_sync_as_they_are(root: Path) -> None:
    """Two arms: rows of 14 joints and 2 grippers, by the loop that the graph's lock-step is compared with."""
    arm = load_embodiment("dual_panda")
    assert arm.joints == 16 and arm.joint_names[7] == "left_gripper" and arm.joint_names[15] == "right_gripper"

    class Source:
        sent, seen = 0, None

        def looks(self, stamp_ns: int) -> bool:
            return True

        def answer(self, observation, in_force):
            self.seen, self.sent = observation, self.sent + 1
            rows = observation.joint_positions + 0.05 * np.arange(1, 4)[:, None] * np.eye(16)[0]
            how = {"representation": Representation.EE_DELTA_STEP, "embodiment": "dual_panda"}
            return ActionChunk(rows, observation.stamp_ns, 50_000_000, "policy", "s", self.sent, **how)

    source = Source()
    loop = DirectLoop(RoboTwinAdapter(width_px=32, height_px=32), "beat_block_hammer")
    episode = loop.run("beat_block_hammer", 1, source, max_steps=20)
    assert (episode.success, episode.refused, episode.holds, episode.violations) == (True, 0, (), 0)
    assert source.seen.joint_names == arm.joint_names and set(source.seen.views) == set(robotwin.CAMERAS)
    np.testing.assert_allclose([a[0] for a in made()[-1].actions], 0.2 + 0.05 * np.arange(1, 8))
