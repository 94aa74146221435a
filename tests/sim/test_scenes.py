from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from e0_policy.scene_data import SceneData
from e0_ros.config import ConfigError
from sim import scenes
from sim.maniskill import ManiSkillAdapter
from sim.scene_sampling import SCENES, scenes_of
from sim.scenes import LABELS, ScenesConfig, main, make_scenes, place_randomly

SIZE = 128
COLOURS = {"PickCube-v1": {"cube": (0, 0), "goal": (7, 1)}, "PushCube-v1": {"cube": (0, 2)}}
"""By task and thing: the first column of its label, and the channel of its colour."""
BASE_M = np.array([-0.615, 0.0, 0.0])
"""The arm's base in ManiSkill's world."""


def test_bad_values_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--task", "PickCubes-v1", "--out", str(tmp_path / "s")]) == 2
    assert "did you mean 'PickCube-v1'" in capsys.readouterr().err
    assert main(["--count", "0", "--out", str(tmp_path / "s")]) == 2
    assert main(["--out", str(tmp_path)]) == 2
    assert "exists; give a new folder" in capsys.readouterr().err


def test_what_was_begun_with_other_values_is_not_mixed_in(tmp_path: Path) -> None:
    scenes._begin(ScenesConfig(count=10, side_px=16), tmp_path / "s")
    with pytest.raises(ConfigError, match="begun with other values"):
        make_scenes(ScenesConfig(count=10, side_px=16, seed=1), tmp_path / "s")


def test_a_full_disk_is_told_before_anything_is_rendered(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs 31457.3 GB.*are free"):
        make_scenes(ScenesConfig(count=10_000_000, side_px=1024), tmp_path / "s")


@pytest.fixture(scope="module")
def adapter(maniskill: None) -> Iterator[ManiSkillAdapter]:
    made = ManiSkillAdapter(("base", "side", "wrist"), SIZE, SIZE)
    yield made
    made.close()


@pytest.mark.sim
@pytest.mark.usefixtures("maniskill")
class TestWithASimulator:
    @pytest.mark.parametrize("task", sorted(SCENES))
    def test_labels_are_where_the_pixels_are(self, adapter: ManiSkillAdapter, task: str) -> None:
        """Centres of the colours of cube and goal against the projected labels, with the arm out of the way."""
        adapter.reset(task, 0)
        rest, known = adapter.joint_state()[0], scenes_of(task)
        aside = rest + np.array([1.5, -0.6, 0, 0, 0, 0, 0])
        seen = 0
        for seed in range(12):
            row = place_randomly(adapter, task, rest, np.random.default_rng(seed))
            poses = {name: adapter.privileged().poses[name] for name in (known.object_name, known.goal_name)}
            adapter.place(aside, 1.0, poses)
            adapter.start_render()
            pictures = adapter.finish_render()
            for view, (name, (first, channel)) in itertools.product(("base", "side"), COLOURS[task].items()):
                found = centre_of(pictures[view], channel)
                if found is not None:
                    assert found == pytest.approx(project(adapter, view, row[first : first + 3]), abs=2.0), (
                        seed,
                        view,
                        name,
                    )
                    seen += 1
        assert seen >= 12

    def test_the_arm_is_where_the_draw_wants_it(self, adapter: ManiSkillAdapter) -> None:
        adapter.reset("PickCube-v1", 0)
        rest = adapter.joint_state()[0]
        for seed in range(5):
            draw = scenes_of("PickCube-v1").draw(np.random.default_rng(seed))
            joints = adapter.reach(draw.tool, rest)
            assert joints is not None
            adapter.place(joints, draw.gripper_opening, {"cube": draw.cube})
            told = adapter.privileged().poses
            assert told["tcp"][:3] == pytest.approx(draw.tool[:3], abs=1e-3)
            assert abs(told["tcp"][3:] @ draw.tool[3:]) == pytest.approx(1.0, abs=1e-4)
            assert told["cube"] == pytest.approx(draw.cube, abs=1e-5)
            assert adapter.gripper_opening() == pytest.approx(draw.gripper_opening, abs=1e-5)
        assert adapter.reach(np.array([3.0, 0, 0, *draw.tool[3:]]), rest) is None
        with pytest.raises(ValueError, match=r"no actor 'cubes'; did you mean 'cube'"):
            adapter.place(rest, 1.0, {"cubes": draw.cube})

    def test_what_was_interrupted_goes_on_to_the_same_bits(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever was rendered before, in whatever order, in this process or another."""
        monkeypatch.setattr(scenes, "BLOCK", 2)
        config = ScenesConfig(views=("base", "wrist"), count=7, side_px=32)
        begun = scenes._begin(config, tmp_path / "s")
        for block in (2, 0):
            assert scenes.render_block(config, begun, block) == 2
        rendered = np.array(np.load(begun / "view_wrist.npy"))
        assert rendered[[0, 1, 4, 5]].any((1, 2, 3)).all() and not rendered[[2, 3, 6]].any()
        monkeypatch.setattr(scenes, "ProcessPoolExecutor", Here)
        whole = make_scenes(config, tmp_path / "s")
        again = make_scenes(config, tmp_path / "t")
        assert not begun.exists()
        for file in sorted(whole.iterdir()):
            assert file.read_bytes() == (again / file.name).read_bytes(), file.name
        assert (np.load(whole / "view_wrist.npy")[[0, 1, 4, 5]] == rendered[[0, 1, 4, 5]]).all()
        index = json.loads((whole / "index.json").read_text())
        assert index["labels"] == list(LABELS) and index["count"] == 7
        data = SceneData(whole, ("wrist", "base"), 32)
        assert data.task.tolist() == [0, 0, 1, 1, 0, 0, 1]
        assert np.unique(np.load(whole / "labels.npy"), axis=0).shape == (7, len(LABELS))


class Here:
    """A pool of this process alone."""

    def __init__(self, workers: int, context: object) -> None:
        pass

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, run, *arguments):  # type: ignore[no-untyped-def]
        from concurrent.futures import Future

        done: Future[int] = Future()
        done.set_result(run(*arguments))
        return done

    def shutdown(self, cancel_futures: bool) -> None:
        pass


def centre_of(picture: np.ndarray, channel: int) -> np.ndarray | None:
    """Mean pixel (u, v) of what has the colour of a channel; None if there is little of it."""
    colours = picture.astype(int)
    times, more = ((2, 30), (2, 30), (1, 50))[channel]
    mask = colours[..., channel] > times * np.delete(colours, channel, -1).max(-1) + more
    return np.argwhere(mask)[:, ::-1].mean(0) if mask.sum() >= 8 else None


def project(adapter: ManiSkillAdapter, view: str, place_m: np.ndarray) -> np.ndarray:
    """Pixel (u, v) of a place in the base frame, by the camera's own matrices."""
    camera = adapter._cameras[view].camera._render_cameras[0]
    u, v, w = camera.get_intrinsic_matrix() @ (camera.get_extrinsic_matrix() @ np.append(place_m + BASE_M, 1.0))
    return np.array([u / w - 0.5, v / w - 0.5])
