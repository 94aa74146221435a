from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from synthetic_bags import open_bag

from e0_msgs.msg import ActionChunk, EpisodeEvent, ExecutorState, Observation
from e0_ros.conversions import image_to_msg, to_time
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.bag_writer import BagWriter
from e0_ros.core.definitions import installed
from e0_ros.core.image_codec import transform
from e0_ros.core.traces import Span, read_traces
from e0_ros.episode_report import main, write_plot
from e0_ros.interfaces import (
    ACTION_CHUNK,
    EPISODE_EVENT,
    EXECUTOR_STATE,
    JOINT_STATES,
    OBSERVATION,
    Topic,
    camera_topic,
)

NAMES = tuple(f"joint{i}" for i in range(1, 8))
START = 10**9
STEP = 50_000_000
COUNT = 60


def add(writer: BagWriter, topic: Topic, message: Any, log_ns: int) -> None:
    if hasattr(message, "header"):
        message.header.stamp = to_time(log_ns)
    store = transform("jpeg", 95, False, installed())
    name, kind, data = store(topic.name, topic.type, serialize_message(message))
    writer.write(name, kind, topic.qos, data, log_ns, log_ns, 0)


def reference(time_s: float) -> np.ndarray:
    return 0.3 * np.sin(2.0 * time_s + np.arange(7))


def make_episode(root: Path) -> Path:
    """3 s at 20 Hz: the arm lags 20 ms; a hold from 1.0 s to 1.5 s; a refusal at 2.0 s."""
    writer = open_bag(root, "episode", chunk_bytes=65536)
    add(writer, EPISODE_EVENT, EpisodeEvent(episode_id="episode"), START)
    for i in range(COUNT):
        now, time_s = START + i * STEP, i * STEP / 1e9
        for view, grey in (("wrist", 4 * i), ("base", 255 - 4 * i)):
            pixels = np.full((48, 64, 3), grey, np.uint8)
            cv2.circle(pixels, (i, 24), 6, (255, 0, 0), -1)
            add(writer, camera_topic(view), image_to_msg(pixels, now, view), now)
        for sample in range(5):
            stamp = now + sample * STEP // 5
            positions = reference((stamp - START) / 1e9 - 0.02)
            shuffled = JointState(name=list(reversed(NAMES)), position=list(reversed(positions)))
            shuffled.velocity = shuffled.effort = [0.0] * 7
            add(writer, JOINT_STATES, shuffled, stamp)
        add(writer, OBSERVATION, Observation(gripper_opening=float(i < 30)), now)
        chunk = ActionChunk(source="policy", sequence=i, rows=2, columns=8, data=np.arange(16.0))
        add(writer, ACTION_CHUNK, chunk, now)
        state = ExecutorState(mode=3 if 20 <= i < 30 else 2, joint_names=NAMES, gripper_opening=float(i < 25))
        state.reason = "policy is late" if state.mode == 3 else ""
        state.positions, state.velocities = reference(time_s), np.zeros(7)
        state.chunks_refused, state.last_refusal = int(i >= 40), "row 3 is NaN" if i >= 40 else ""
        add(writer, EXECUTOR_STATE, state, now)
    about = {"episode_id": "episode", "instruction": "pick up the cube", "task": "PickCube-v1", "outcome": "success"}
    return writer.close({**about, "configuration": "views: [base, wrist]"}).path


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_episode(tmp_path_factory.mktemp("bags"))


def test_traces_hold_what_was_commanded_and_measured(episode: Path) -> None:
    traces = read_traces(Bag(episode))
    assert traces.joint_names == NAMES and traces.start_ns == START
    assert traces.measured.values.shape == (5 * COUNT, 7) and traces.commanded.values.shape == (COUNT, 7)
    np.testing.assert_allclose(traces.measured.values[7], reference(0.07 - 0.02), atol=1e-12)
    np.testing.assert_allclose(traces.commanded.values[7], reference(0.35), atol=1e-12)
    assert traces.gripper_measured.values[[29, 30], 0].tolist() == [1.0, 0.0]
    assert traces.gripper_commanded.values[[24, 25], 0].tolist() == [1.0, 0.0]
    # a lag of 20 ms at up to 0.6 rad/s is at most 12 mrad
    assert 0.010 < np.abs(traces.tracking_error_rad()).max() < 0.014


def test_traces_name_holds_and_refusals(episode: Path) -> None:
    traces = read_traces(Bag(episode))
    assert traces.spans == (
        Span("RUNNING", "", 0.0, 1.0),
        Span("HOLD", "policy is late", 1.0, 1.5),
        Span("RUNNING", "", 1.5, 2.95),
    )
    assert traces.refusals == ((2.0, "row 3 is NaN"),)


def test_the_video_shows_both_views_at_the_rate_of_the_reference_view(episode: Path, tmp_path: Path) -> None:
    assert main([str(episode), "--out", str(tmp_path), "--only", "video"]) == 0
    with av.open(str(tmp_path / "episode.mp4")) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264" and stream.average_rate == 20
    assert len(frames) == COUNT
    height, width, _ = frames[0].shape
    for i in (0, 30, 59):
        base, wrist = frames[i][height // 3, width // 2 - 20], frames[i][height // 3, width - 20]
        assert abs(base.mean() - (255 - 4 * i)) < 12 and abs(wrist.mean() - 4 * i) < 12
    assert frames[0][-100:].max() > 200  # there is text
    assert [p.name for p in tmp_path.iterdir()] == ["episode.mp4"]


def test_the_plot_is_a_picture_and_marks_the_hold(episode: Path, tmp_path: Path) -> None:
    traces = read_traces(Bag(episode))
    write_plot(traces, tmp_path / "with.png")
    write_plot(replace(traces, spans=(), refusals=()), tmp_path / "without.png")
    marked, plain = (cv2.imread(str(tmp_path / name)) for name in ("with.png", "without.png"))
    assert min(plain.shape[:2]) > 600

    def orange(picture: np.ndarray) -> int:
        blue, green, red = picture.reshape(-1, 3).astype(int).T
        return int(((red > 240) & (blue < 200) & (green > 190)).sum())

    assert orange(marked) > 10_000 > orange(plain)


def test_both_are_written_beside_the_bag(episode: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(episode)]) == 0
    assert capsys.readouterr().out.split() == [str(episode.parent / f"episode.{s}") for s in ("mp4", "png")]


def test_a_partial_bag_needs_salvage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = open_bag(tmp_path, "cut")
    add(writer, JOINT_STATES, JointState(name=["a"], position=[1.0], velocity=[0.0], effort=[0.0]), START)
    writer.flush()
    partial = str(tmp_path / "cut.partial")
    assert main([partial]) == 1
    assert "can be salvaged" in capsys.readouterr().err
    assert main([partial, "--salvage", "--only", "plot"]) == 0


def test_a_bag_without_images_or_joints_says_so(tmp_path: Path) -> None:
    writer = open_bag(tmp_path, "empty")
    add(writer, EPISODE_EVENT, EpisodeEvent(), START)
    path = writer.close({}).path
    assert main([str(path), "--only", "video"]) == 1
    with pytest.raises(BagReadError, match="nothing can be plotted"):
        read_traces(Bag(path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]
