"""`e0 calibrate` on takes whose pictures are drawn, so that the truth is known."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytestmark = pytest.mark.ros

from episode_bags import add  # noqa: E402
from sensor_msgs.msg import CameraInfo, JointState  # noqa: E402
from synthetic_bags import open_bag  # noqa: E402

from e0_msgs.msg import ExecutorState  # noqa: E402
from e0_policy.embodiment import load_embodiment  # noqa: E402
from e0_policy.kinematics import flange_pose  # noqa: E402
from e0_ros import calibrate_command, graph_client, record_command  # noqa: E402
from e0_ros.cli import main  # noqa: E402
from e0_ros.conversions import image_to_msg  # noqa: E402
from e0_ros.core.bag_writer import BagWriter  # noqa: E402
from e0_ros.core.bench_calibration import read_bench  # noqa: E402
from e0_ros.core.camera_model import pose_matrix  # noqa: E402
from e0_ros.interfaces import (  # noqa: E402
    END_EPISODE,
    EXECUTOR_STATE,
    JOINT_STATES,
    START_EPISODE,
    STOP,
    WAVE,
    Service,
    camera_info_topic,
    camera_topic,
)
from tests.core.test_hand_eye import K, draw, off  # noqa: E402
from tests.core.test_latency_calibration import drawn, positions  # noqa: E402
from tests.core.test_view_check import seen, table  # noqa: E402

ARM = load_embodiment("fr3")
S = 10**9
LATE_S, LAG_S = 0.045, 0.030
ON_FLANGE = pose_matrix((0.06, 0.0, 0.02), (0.0, 0.0, 0.7071, 0.7071))


def image(writer: BagWriter, view: str, pixels, t_s: float) -> None:
    add(writer, camera_topic(view), image_to_msg(np.ascontiguousarray(pixels), 0, view), S + int(t_s * S))


def joints(writer: BagWriter, q, t_s: float) -> None:
    said = JointState(name=list(ARM.joint_names), position=list(map(float, q)), velocity=[0.0] * 7, effort=[0.0] * 7)
    add(writer, JOINT_STATES, said, S + int(t_s * S))


def waving(root: Path, lag_s: float = LAG_S) -> Path:
    writer, rng = open_bag(root, "waving"), np.random.default_rng(1)
    for i in range(2300):
        t = i * 0.005
        joints(writer, positions(np.array([t]))[0], t)
        if i % 4 == 0:
            told = ExecutorState(mode=2, joint_names=list(ARM.joint_names))
            told.positions, told.velocities = list(map(float, positions(np.array([t + lag_s]))[0])), [0.0] * 7
            add(writer, EXECUTOR_STATE, told, S + int(t * S))
        if i % 7 == 0:
            for view in ("base", "still"):
                grey = drawn(t, rng) if view == "base" else rng.normal(90, 3, (96, 96))
                image(writer, view, np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2), t + LATE_S)
    return writer.close({}).path


def test_latencies_of_a_take_and_a_view_that_sees_nothing(tmp_path, capsys) -> None:
    bag, out = waving(tmp_path), tmp_path / "bench.yaml"
    words = ["calibrate", "latency", "--bag", str(bag), "--out", str(out), "--json", str(tmp_path / "f.json")]
    assert main(words) == 1, "one view was not measured"
    said = capsys.readouterr()
    assert "not measured: still: the camera sees too little of the motion" in said.err
    found = read_bench(out)
    assert found.arm_lag_ms == pytest.approx(1e3 * LAG_S, abs=1.5)
    assert dict(found.camera_latency_ms) == {"base": pytest.approx(1e3 * LATE_S, abs=4.0)}
    assert json.loads((tmp_path / "f.json").read_text())["base"]["agreement"] > 0.8


def test_a_lag_that_no_graph_would_take_is_not_written(tmp_path, capsys) -> None:
    bag, out = waving(tmp_path, lag_s=0.32), tmp_path / "mine" / "bench.yaml"
    assert main(["calibrate", "latency", "--bag", str(bag), "--out", str(out)]) == 1
    assert "the arm follows after 320 ms" in capsys.readouterr().err and not out.exists()
    out.write_text("arm_lag: 3")
    assert main(["calibrate", "latency", "--out", str(out)]) == 1
    assert "did you mean 'arm_lag_ms'" in capsys.readouterr().err, "told before a graph is looked for"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_leaves_while_the_arm_waves_stops_it(tmp_path, capsys, monkeypatch, number: signal.Signals) -> None:
    called: list[Service | None] = []

    class Waving(graph_client.GraphClient):
        """Agrees to everything; the signal comes when the wave has begun."""

        def __init__(self) -> None:
            self.leaving, self._session_values, self._health = False, {"ended": "3"}, lambda: None

        def wait_for(self, *services: Service) -> None:
            assert WAVE in services

        def call(self, service: Service, **_: Any) -> Any:
            called.append(service)
            if service == WAVE:
                signal.raise_signal(number)
            return SimpleNamespace(bag="bag")

        def close(self) -> None:
            called.append(None)

    before = signal.signal(number, signal.default_int_handler)
    monkeypatch.setattr(graph_client, "GraphClient", Waving)
    try:
        assert main(["calibrate", "latency", "--out", str(tmp_path / "bench.yaml")]) == 1
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert called == [START_EPISODE, WAVE, STOP, END_EPISODE, None]
    assert "interrupted: the executor is stopped" in capsys.readouterr().err and not list(tmp_path.iterdir())


def standing(root: Path, count: int = 14) -> Path:
    """A take in which the arm goes from pose to pose and stands 1 s at each, a board on the table."""
    writer, rng = open_bag(root, "standing"), np.random.default_rng(2)
    camera = flange_pose(ARM.home) @ ON_FLANGE
    place = np.eye(4)
    place[:3, 3] = [-0.105, -0.075, 0.5]
    board = camera @ place
    info = CameraInfo(width=640, height=480, k=list(K.ravel()), d=[0.0] * 5, distortion_model="plumb_bob")
    add(writer, camera_info_topic("wrist"), info, S)
    spread = np.array([0.08, 0.08, 0.08, 0.08, 0.35, 0.3, 0.5])
    before, t = ARM.home, 0.0
    for _ in range(count):
        q = ARM.home + rng.uniform(-1, 1, 7) * spread
        for share in np.linspace(0.0, 1.0, 20):
            joints(writer, before + share * (q - before), t)
            t += 0.02
        pose = np.linalg.inv(flange_pose(q) @ ON_FLANGE) @ board
        picture = draw(pose, rng)
        for i in range(50):
            joints(writer, q + rng.normal(0, 5e-6, 7), t)
            if i % 10 == 5:
                image(writer, "wrist", picture, t)
            t += 0.02
        before = q
    return writer.close({}).path


def test_a_cameras_place_of_a_take(tmp_path, capsys) -> None:
    bag, out = standing(tmp_path), tmp_path / "bench.yaml"
    words = ["calibrate", "camera", "--bag", str(bag), "--view", "wrist", "--parent", "flange", "--out", str(out)]
    assert main(words) == 0, capsys.readouterr().err
    assert "the arm stood at 14 poses" in capsys.readouterr().out
    place = read_bench(out).cameras["wrist"]
    metres, radians = off(place.pose, ON_FLANGE)
    assert place.parent == "flange" and metres < 0.002 and radians < 0.003
    assert main([*words[:-1], str(out), "--view", "side"]) == 1
    assert "side/color/camera_info was not recorded" in capsys.readouterr().err


def test_a_view_that_has_moved_and_one_that_has_not(tmp_path, capsys, monkeypatch) -> None:
    rng, scene = np.random.default_rng(3), table()
    bags = []
    for name, dx in (("then", 0.0), ("now", 12.0)):
        writer = open_bag(tmp_path, name)
        for view, shift in (("base", dx), ("side", 0.0)):
            image(writer, view, seen(scene, rng, shift), 0.0)
        bags.append(writer.close({}).path)
    words = ["calibrate", "view", "--reference", str(bags[0]), "--out", str(tmp_path / "over")]
    assert main([*words, "--bag", str(bags[1])]) == 1
    said = capsys.readouterr().out
    assert "base     MOVED" in said and "side     where it was" in said
    assert cv2.imread(str(tmp_path / "over" / "view_base.png")).shape == (480, 640, 3)
    assert main([*words, "--bag", str(bags[1]), "--views", "side"]) == 0
    monkeypatch.setattr(calibrate_command, "seen_now", lambda views: {"side": seen(scene, rng)})
    assert main([*words, "--views", "side"]) == 0
    monkeypatch.setattr(calibrate_command, "seen_now", lambda views: {})
    assert main(words) == 1 and "is in both" in capsys.readouterr().err


def test_the_printed_board_is_drawn_in_its_true_size(tmp_path) -> None:
    out = tmp_path / "board.svg"
    assert main(["calibrate", "board", "--out", str(out), "--square-m", "0.025"]) == 0
    assert 'width="195mm" height="145mm"' in out.read_text()


def test_a_recording_begins_with_the_comparison(tmp_path, capsys, monkeypatch) -> None:
    rng, scene = np.random.default_rng(4), table()
    writer = open_bag(tmp_path, "then")
    for view in ("base", "wrist"):
        image(writer, view, seen(scene, rng), 0.0)
    bag = writer.close({}).path
    monkeypatch.setattr(record_command, "pictures", lambda views, _: {v: seen(scene, rng, 20.0) for v in views})
    record_command._compare_views(bag, tmp_path / "logs")
    said = capsys.readouterr().out
    assert "base     MOVED" in said and "wrist" not in said.split("a camera")[0] and "since then" in said
    assert (tmp_path / "logs" / "view_base.png").exists()
