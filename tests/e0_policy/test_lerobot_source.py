from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_folder import FPS, JOINTS, number_of, picture, write_folder, write_video

from e0_policy.dataset import DatasetError, gather
from e0_policy.lerobot_layout import Layout
from e0_policy.lerobot_source import LeRobotSource


def png(image: np.ndarray) -> bytes:
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = image.shape[1], image.shape[0], "rgb24", Fraction(1, 1)
    return b"".join(bytes(p) for p in codec.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))


def test_numbers_instructions_and_frames_come_back_over_files_and_chunks(tmp_path):
    folder = write_folder(tmp_path / "d", (5, 7, 4, 6, 3), per_file=2)
    assert len(list((tmp_path / "d/data").rglob("*.parquet"))) == 3 and (tmp_path / "d/data/chunk-001").is_dir()
    source = LeRobotSource(tmp_path / "d")
    assert source.embodiment == "panda" and source.period_ns == 50_000_000 and source.views == ("base", "wrist")
    assert source.action_names == (*JOINTS, "gripper")
    number = 0
    for e, episode in enumerate(source.episodes):
        np.testing.assert_array_equal(episode.proprioception, folder.states[e].astype(np.float64))
        np.testing.assert_array_equal(episode.actions, folder.actions[e].astype(np.float64))
        assert episode.instruction == folder.instructions[e]
        for t in range(len(episode)):
            images = source.images(e, t)
            assert [number_of(images[v], i) for i, v in enumerate(("base", "wrist"))] == [number, number]
            number += 1
    assert number == 25


@pytest.mark.parametrize(("codec", "gop"), [("libx264", 1), ("libx264", 2), ("libx264", 250), ("libsvtav1", 2)])
def test_any_frame_in_any_order_is_the_right_one(tmp_path, codec, gop):
    write_folder(tmp_path / "d", (40, 30), gop=gop, codec=codec, side=64)
    source = LeRobotSource(tmp_path / "d")
    numbers = np.random.default_rng(0).permutation(70)
    for number in [*numbers.tolist(), 5, 6, 7, 5, 69, 0]:
        e, t = (0, number) if number < 40 else (1, number - 40)
        assert number_of(source.images(e, t)["wrist"], 1) == number


def test_a_batch_is_the_same_as_its_frames(tmp_path):
    write_folder(tmp_path / "d", (12, 9), side=32)
    source = LeRobotSource(tmp_path / "d")
    episodes, frames = np.array([1, 0, 0, 1]), np.array([3, 11, 2, 0])
    images, present = gather(source, ("wrist", "side", "base"), episodes, frames, 32)
    assert present.tolist() == [[True, False, True]] * 4 and not images[:, 1].any()
    for i, (e, t) in enumerate(zip(episodes, frames, strict=True)):
        np.testing.assert_array_equal(images[i, 2], source.images(e, t)["base"])
    assert [number_of(i, 0) for i in images[:, 2]] == [15, 11, 2, 12]


def test_a_change_of_task_cuts_an_episode(tmp_path):
    write_folder(tmp_path / "d", (6, 4))
    path = tmp_path / "d/data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    tasks = [0, 0, 1, 1, 1, 0, 1, 1, 1, 1]
    pq.write_table(table.set_column(table.column_names.index("task_index"), "task_index", [tasks]), path)
    source = LeRobotSource(tmp_path / "d")
    assert [(e.identifier, e.instruction, len(e)) for e in source.episodes] == [
        ("0.0", "pick the cube", 2), ("0.2", "push the cube", 3), ("0.5", "pick the cube", 1),
        ("1", "push the cube", 4),
    ]  # fmt: skip
    assert [number_of(source.images(e, 0)["base"], 0) for e in range(4)] == [0, 2, 5, 6]
    assert [e.take for e in source.episodes] == ["0", "0", "0", "1"]


def test_a_dataset_of_others_needs_a_layout(tmp_path):
    folder = write_folder(tmp_path / "d", (8, 6), own=False)
    with pytest.raises(DatasetError, match=r"no meta/e0\.json: it is not whole .*give its embodiment"):
        LeRobotSource(tmp_path / "d")
    layout = Layout(
        "panda", {"front": "observation.images.wrist"}, action="next_state", degrees=True,
        state_columns=(6, 5, 4, 3, 2, 1, 0, 7), gripper_closed=1.0, gripper_open=0.0,
    )  # fmt: skip
    source = LeRobotSource(tmp_path / "d", layout)
    assert source.views == ("front",) and source.embodiment == "panda" and source.period_ns == 10**9 // FPS
    assert source.action_names == (*JOINTS, "gripper") and number_of(source.images(1, 2)["front"], 1) == 10
    state = folder.states[1].astype(np.float64)
    expected = np.concatenate([np.deg2rad(state[:, 6::-1]), 1 - state[:, 7:]], 1)
    np.testing.assert_allclose(source.episodes[1].proprioception, expected, atol=1e-12)
    np.testing.assert_array_equal(source.episodes[1].actions[:-1], source.episodes[1].proprioception[1:])
    np.testing.assert_array_equal(source.episodes[1].actions[-1], source.episodes[1].proprioception[-1])


def test_pictures_in_the_rows_are_read_too(tmp_path):
    write_folder(tmp_path / "d", (6, 4, 5))
    path, info = tmp_path / "d/data/chunk-000/file-000.parquet", tmp_path / "d/meta/info.json"
    for file, first, count in ((path, 0, 10), (tmp_path / "d/data/chunk-001/file-000.parquet", 10, 5)):
        pictures = [{"bytes": png(picture(0, n, 32)), "path": f"{n}.png"} for n in range(first, first + count)]
        table = pq.read_table(file).append_column("observation.images.top", pa.array(pictures))
        pq.write_table(table, file, row_group_size=4)
    said = json.loads(info.read_text())
    said["features"]["observation.images.top"] = {"dtype": "image", "shape": [32, 32, 3]}
    info.write_text(json.dumps(said))
    source = LeRobotSource(tmp_path / "d")
    assert source.views == ("base", "wrist", "top")
    places = [(0, t) for t in range(6)] + [(1, t) for t in range(4)] + [(2, t) for t in range(5)]
    for number in (0, 14, 3, 4, 9, 10, 1):
        np.testing.assert_array_equal(source.images(*places[number])["top"], picture(0, number, 32))


def test_what_is_not_whole_is_refused_with_both_numbers(tmp_path):
    write_folder(tmp_path / "d", (8, 6, 5))
    info = tmp_path / "d/meta/info.json"
    good = json.loads(info.read_text())
    info.write_text(json.dumps({**good, "total_frames": 20}))
    with pytest.raises(DatasetError, match=r"not whole: meta/info\.json says 20 frames, its episodes have 19 frames"):
        LeRobotSource(tmp_path / "d")
    info.write_text(json.dumps(good))
    own = tmp_path / "d/meta/e0.json"
    said = own.read_text()
    own.write_text(said.replace('"frames": 5', '"frames": 7'))
    with pytest.raises(DatasetError, match=r"its data files have 19 frames, meta/e0\.json says 21 frames"):
        LeRobotSource(tmp_path / "d")
    own.write_text("{}")
    with pytest.raises(DatasetError, match=r"e0\.json lacks embodiment, joint_names, period_ns, episodes"):
        LeRobotSource(tmp_path / "d")
    own.write_text(said)
    info.write_text(json.dumps({**good, "total_episodes": 4}))
    with pytest.raises(DatasetError, match="4 episodes stated, 3 there"):
        LeRobotSource(tmp_path / "d")
    info.write_text(json.dumps(good))
    data = tmp_path / "d/data/chunk-001/file-000.parquet"
    content = data.read_bytes()
    pq.write_table(pq.read_table(data).slice(0, 4), data)
    with pytest.raises(DatasetError, match="its episodes have 19 frames, its data files have 18 frames"):
        LeRobotSource(tmp_path / "d")
    data.write_bytes(content[:-8])
    with pytest.raises(DatasetError, match=r"file-000\.parquet cannot be read.*not whole"):
        LeRobotSource(tmp_path / "d")
    data.write_bytes(content)
    video = tmp_path / "d/videos/observation.images.wrist/chunk-000/file-000.mp4"
    for frames in (13, 15):
        write_video(video, [np.zeros((32, 32, 3), np.uint8)] * frames, 2)
        with pytest.raises(DatasetError, match=rf"not whole: .*file-000\.mp4 has {frames} frames for 14 rows"):
            LeRobotSource(tmp_path / "d")
    video.write_bytes(b"not a video")
    with pytest.raises(ValueError, match=r"file-000\.mp4 cannot be read as a video"):
        LeRobotSource(tmp_path / "d")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebase_version": "v2.1"}, r"is LeRobotDataset v2\.1; v3\.0 is read"),
        ({"data_path": "../{chunk_index}"}, r"data_path leads to '\.\./0', outside of the folder"),
        ({"data_path": "/etc/passwd"}, "outside of the folder"),
        ({"video_path": "{video_key.__class__}"}, "which is no template of paths"),
    ],
)
def test_what_a_dataset_says_of_itself_is_checked(tmp_path, change, message):
    write_folder(tmp_path / "d", (4,))
    info = tmp_path / "d/meta/info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), **change}))
    with pytest.raises(DatasetError, match=message):
        LeRobotSource(tmp_path / "d")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"views": {"base": "observation.images.top"}}, r"has no images 'observation\.images\.top'; it has .*\.base"),
        ({"state": "state"}, "state"),
        ({"state_columns": (0, 1)}, r"observation\.state has 2 columns; 8 are needed: panda_joint1"),
        ({"gripper_open": 0.001}, r"the gripper's column of .* spans .*Give gripper_closed and gripper_open"),
    ],
)
def test_a_layout_that_does_not_fit_is_named(tmp_path, layout, message):
    write_folder(tmp_path / "d", (9,))
    with pytest.raises(DatasetError, match=message):
        LeRobotSource(tmp_path / "d", Layout(**layout))


def test_the_digest_follows_the_content(tmp_path):
    write_folder(tmp_path / "a", (4,))
    before = LeRobotSource(tmp_path / "a").digest()
    assert before == LeRobotSource(tmp_path / "a").digest()
    assert before != LeRobotSource(tmp_path / "a", Layout(views={"base": "observation.images.base"})).digest()
    (tmp_path / "a/meta/e0.json").write_text((tmp_path / "a/meta/e0.json").read_text() + " ")
    assert before != LeRobotSource(tmp_path / "a").digest()
