import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from episode_bags import COUNT, FR3, NAMES, START, add, make_episode, reference
from sensor_msgs.msg import JointState
from synthetic_bags import open_bag

from e0_msgs.msg import EpisodeEvent
from e0_policy.kinematics import tcp_position_m
from e0_ros.core.bag_cameras import camera_models
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.inspection_plot import plot
from e0_ros.core.traces import Span, read_traces
from e0_ros.episode_report import main
from e0_ros.episode_video import VIEW_PX
from e0_ros.interfaces import EPISODE_EVENT, JOINT_STATES


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


def test_the_plot_is_a_picture_and_marks_the_hold(episode: Path) -> None:
    traces = read_traces(Bag(episode))
    pictures = [plot(t, None, {}) for t in (traces, replace(traces, spans=(), refusals=()))]
    marks = [[e.get("class") for e in ElementTree.fromstring(picture).iter()] for picture in pictures]
    panels = len(NAMES) + 1
    assert marks[0].count("m") >= panels and marks[0].count("c") >= panels
    assert (marks[0].count("hold"), marks[0].count("refused")) == (panels + 1, panels + 1)  # and in the legend
    assert (marks[1].count("hold"), marks[1].count("refused")) == (0, 0)


def test_all_is_written_beside_the_bag_and_named(episode: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(episode)]) == 0
    video, picture = (episode.parent / f"episode.{s}" for s in ("mp4", "svg"))
    assert capsys.readouterr().out.splitlines() == [str(video), str(picture)]
    text = picture.read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg") and "<style>" in text and "policy is late" in text


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


def test_the_video_shows_the_plan_and_its_doubt_where_the_camera_sees_the_tool(tmp_path: Path) -> None:
    path = make_episode(tmp_path, "calibrated", count=6, calibrated=True)
    (camera,) = camera_models(Bag(path), ("base", "wrist"), FR3).values()
    x, y = (camera.project(tcp_position_m(FR3.home)[None])[0] + 0.5) * VIEW_PX / 64
    assert main([str(path), "--out", str(tmp_path / "out"), "--only", "video"]) == 0
    with av.open(str(tmp_path / "out" / "calibrated.mp4")) as container:
        frame = [f.to_ndarray(format="rgb24") for f in container.decode(container.streams.video[0])][-1].astype(int)
    margin = (VIEW_PX - VIEW_PX * 48 // 64) // 2
    red, green, blue = frame[round(y) + margin, round(x)]
    assert red > green + 60 and red > blue + 60  # doubt at the scale's end
    wrist = frame[:VIEW_PX, VIEW_PX:]
    assert not ((wrist[..., 0] > wrist[..., 1] + 60) & (np.indices(wrist.shape[:2])[0] < VIEW_PX // 3)).any()
