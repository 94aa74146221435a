import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_folders import VIEW, write_dataset, write_video

from e0_ros.convert import convert
from e0_ros.core.bag_reader import Bag
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.core.grading import grade_bag
from e0_ros.core.inspection_dataset import inspect_episodes, inspect_videos, jobs
from e0_ros.core.inspection_lerobot import DatasetReadError, open_dataset
from e0_ros.synthetic_episode import SyntheticEpisode


def brightness(jpeg: bytes) -> float:
    return float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean())


def test_somebodys_dataset_gives_a_take_per_episode(tmp_path):
    dataset = open_dataset(write_dataset(tmp_path, tasks=("stack", "fold")))
    assert list(jobs(dataset)) == [[0, 1, 2]]
    takes = inspect_episodes(dataset, [0, 1, 2])
    assert [(t.frames, t.instruction, t.fault, t.findings) for t in takes] == [
        (20, "stack", "", []),
        (30, "fold", "", []),
        (25, "stack", "", []),
    ]
    first = takes[0]
    assert first.duration_s == pytest.approx(1.9) and first.embodiment == "so101"
    assert first.motion.joint_names == ("shoulder.pos", "elbow.pos") and first.motion.gripper == (0.0, 1.0)
    assert first.motion.error_max == pytest.approx((0.1, 0.0), abs=1e-6)
    assert first.stream(VIEW).rate_hz == pytest.approx(10.0)
    # the pictures are the episode's own: its first, middle and last frame in the shared video
    shown = [[brightness(jpeg) for jpeg in take.thumbnails[VIEW]] for take in takes]
    expected = [[0, 40, 76], [80, 140, 196], [200, 248, (4 * 74) % 256]]
    np.testing.assert_allclose(shown, expected, atol=6)


def test_a_dataset_that_is_not_whole_says_so(tmp_path):
    root = write_dataset(tmp_path)
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 70), path)
    write_video(root / f"videos/{VIEW}/chunk-000/file-000.mp4", 70)
    dataset = open_dataset(root)
    faults = [take.fault for take in inspect_episodes(dataset, [0, 1, 2])]
    assert faults[:2] == ["", ""] and "20 rows, but meta/episodes says 25" in faults[2]
    (video,) = inspect_videos(dataset, VIEW)
    assert "70 video frames for 75 rows" in video.fault


def test_missing_and_damaged_files_are_faults_of_the_takes_that_need_them(tmp_path):
    root = write_dataset(tmp_path)
    dataset = open_dataset(root)
    (root / f"videos/{VIEW}/chunk-000/file-000.mp4").write_bytes(b"no video")
    assert all(take.fault for take in inspect_episodes(dataset, [0, 1, 2]))
    assert not any(take.fault for take in inspect_episodes(dataset, [0, 1, 2], pictures=False))
    (root / "data/chunk-000/file-000.parquet").unlink()
    assert all("No such file" in take.fault for take in inspect_episodes(dataset, [0, 1, 2], pictures=False))


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"codebase_version": "v2.1"}, "version v2.1"),
        ({"fps": 0}, "fps must be above 0"),
        ({"fps": "many"}, "damaged"),
        ({"features": []}, "damaged"),
    ],
)
def test_other_versions_and_nonsense_are_refused_with_the_reason(tmp_path, info, text):
    with pytest.raises(DatasetReadError, match=text):
        open_dataset(write_dataset(tmp_path, **info))


def test_a_dataset_cannot_lead_out_of_its_folder(tmp_path):
    outside = write_dataset(tmp_path / "outside")
    dataset = open_dataset(write_dataset(tmp_path / "inside", data_path=f"{outside}/data/chunk-000/file-000.parquet"))
    assert all("leads out of the dataset" in take.fault for take in inspect_episodes(dataset, [0]))
    dataset = open_dataset(write_dataset(tmp_path / "inside", data_path="{chunk_index.__class__.__mro__}"))
    assert inspect_episodes(dataset, [0])[0].fault


@pytest.mark.parametrize("stream", ["wrist", "gripper", "joints"])
def test_a_gap_that_was_held_shows_in_the_ages(tmp_path, stream):
    """Rows and videos are regular: only `e0.age_ms.*` tells, beyond the bound of the bag's own check."""
    episode = SyntheticEpisode(seconds=1.5, missing={stream: (0.4, 0.9)})
    bag = episode.write(tmp_path / "bags")
    convert([bag], tmp_path / "out", ConvertConfig(gaps="hold"), Selection())
    (take,) = inspect_episodes(open_dataset(tmp_path / "out"), [0], pictures=False)
    (flag,) = (f for f in grade_bag(Bag(bag)) if f.kind == "gap" and f.stream == stream)
    nearest = 2 if stream == "joints" else 1
    assert take.age_bounds_ms[stream] == pytest.approx(flag.bound / nearest)
    assert 400 / nearest < take.ages_ms[stream] <= flag.value / nearest
    assert str(flag) in take.findings
    (aged,) = (finding for finding in take.findings if "ms old" in finding)
    assert aged.startswith(f"{stream}: a sample is {take.ages_ms[stream]:.0f} ms old; allowed are ")


def test_ages_are_judged_by_the_usual_bounds_where_the_dataset_tells_none(tmp_path):
    """Both views at once: the skew between them stays as it was."""
    SyntheticEpisode(seconds=1.5, missing=dict.fromkeys(("base", "wrist"), (0.4, 0.9))).write(tmp_path / "bags")
    convert([tmp_path / "bags"], tmp_path / "out", ConvertConfig(gaps="hold"), Selection())
    path = tmp_path / "out/meta/e0.json"
    told = json.loads(path.read_text())
    for episode in told["episodes"]:
        del episode["gap_bounds_ms"], episode["flags"]
    path.write_text(json.dumps(told))
    (take,) = inspect_episodes(open_dataset(tmp_path / "out"), [0], pictures=False)
    assert [f.split(":")[0] for f in take.findings if f.endswith("ms old; allowed are 140 ms")] == ["base", "wrist"]
    assert len(take.findings) == 2


def test_nonsense_in_the_files_of_others_is_no_obstacle(tmp_path):
    root = write_dataset(tmp_path)
    nonsense = {"lost": "many", "flags": 3, "gap_bounds_ms": {"front": [1]}}
    (root / "meta/e0.json").write_text(json.dumps({"episodes": [nonsense, {"gap_bounds_ms": 3}, None]}))
    takes = inspect_episodes(open_dataset(root), [0, 1, 2], pictures=False)
    assert [(take.fault, take.lost, take.flags, take.ages_ms) for take in takes] == [("", 0, [], {})] * 3


def test_a_dataset_without_gaps_has_no_ages_to_flag(tmp_path):
    SyntheticEpisode(seconds=1.5).write(tmp_path / "bags")
    convert([tmp_path / "bags"], tmp_path / "out", ConvertConfig(), Selection())
    (take,) = inspect_episodes(open_dataset(tmp_path / "out"), [0], pictures=False)
    assert take.findings == [] and 0 < take.ages_ms["wrist"] < 50 and (take.lost, take.lost_counted) == (0, True)
