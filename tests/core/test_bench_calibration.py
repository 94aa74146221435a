import numpy as np
import pytest

from e0_policy.types import Observation
from e0_ros.config import ConfigError
from e0_ros.core.bench_calibration import BenchCalibration, CameraPlace, read_bench, updated, write_bench
from e0_ros.core.camera_model import pose_matrix
from e0_ros.core.observation_sync import ObservationSync
from e0_ros.core.pairing import SyncConfig
from e0_ros.core.resample import Grid, GridSync
from e0_ros.graph import FrankaArguments, TeleopArguments, franka_graph, teleop_graph
from tests.core.driven import MS, START, Driven

PLACE = CameraPlace("flange", pose_matrix((0.05, 0.0, 0.03), (0.0, 0.0, 0.7, 0.7)), 0.31)


def test_what_was_measured_is_added_to_the_file_and_read_back(tmp_path) -> None:
    path = tmp_path / "bench.yaml"
    write_bench(path, updated(path, arm_lag_ms=41.234, camera_latency_ms={"base": 33.3}))
    write_bench(path, updated(path, cameras={"wrist": PLACE}))
    write_bench(path, updated(path, camera_latency_ms={"wrist": 35.0}))
    found = read_bench(path)
    assert (found.arm_lag_ms, dict(found.camera_latency_ms)) == (41.23, {"base": 33.3, "wrist": 35.0})
    assert found.latencies_ms(("wrist", "top", "base")) == (35.0, 0.0, 33.3)
    np.testing.assert_allclose(found.cameras["wrist"].pose, PLACE.pose, atol=1e-6)
    assert BenchCalibration().latencies_ms(("base",)) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm_lag: 3", "did you mean 'arm_lag_ms'"),
        ("arm_lag_ms: 900", "allowed is 0.0 to 300.0"),
        ("camera_latency_ms: {base: .nan}", "camera_latency_ms.base is nan"),
        ("cameras: {base: {parent: hand, position_m: [0, 0, 0], quaternion_xyzw: [0, 0, 0, 1]}}", "base or flange"),
        ("cameras: {base: {parent: base, position_m: [0, 0], quaternion_xyzw: [0, 0, 0, 1]}}", "3 numbers"),
        ("cameras: {base: {parent: base, position_m: [0, 0, 0], quaternion_xyzw: [0, 0, 0, 0]}}", "unit quaternion"),
        ("cameras: [1]", "bench.yaml"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(tmp_path, text, message) -> None:
    (tmp_path / "bench.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_bench(tmp_path / "bench.yaml")


def test_the_graph_of_the_bench_uses_all_of_it(tmp_path) -> None:
    path = tmp_path / "bench.yaml"
    write_bench(path, BenchCalibration(41.0, {"base": 33.0}, {"wrist": PLACE}))
    given = {"robot_ip": "1", "checkpoint": "c", "serials": ("1", "2")}
    graph = franka_graph(FrankaArguments(calibration=str(path), **given))
    settings = {process.name: process.settings for process in graph.processes}
    assert settings["observation_sync"]["camera_latency_ms"] == [33.0, 0.0]
    assert settings["chunk_executor"]["arm_lag_ms"] == 41.0
    by_name = {foreign.name: foreign for foreign in graph.foreign}
    words = by_name["place_wrist"].arguments
    assert words[words.index("--frame-id") + 1] == "fr3_link8"
    assert words[words.index("--child-frame-id") + 1] == "wrist_color_optical_frame"
    assert float(words[words.index("--x") + 1]) == 0.05
    assert "publish_tf:=false" in by_name["camera_wrist"].arguments
    assert "publish_tf:=false" not in by_name["camera_base"].arguments and "place_base" not in by_name
    plain = {p.name: p.settings for p in franka_graph(FrankaArguments(**given)).processes}
    assert "camera_latency_ms" not in plain["observation_sync"] and "arm_lag_ms" not in plain["chunk_executor"]
    with pytest.raises(ConfigError, match="cannot be read"):
        franka_graph(FrankaArguments(calibration=str(tmp_path / "none.yaml"), **given))


def test_a_policy_is_told_where_cameras_stood_when_its_demonstrations_were_recorded(tmp_path) -> None:
    now, then = tmp_path / "bench.yaml", tmp_path / "may.yaml"
    moved = CameraPlace("flange", pose_matrix((0.05, 0.02, 0.03), (0.0, 0.0, 0.0, 1.0)), 0.3)
    write_bench(now, BenchCalibration(cameras={"wrist": moved}))
    write_bench(then, BenchCalibration(41.0, {"base": 33.0}, {"wrist": PLACE}))
    given = {"robot_ip": "1", "checkpoint": "c", "serials": ("1", "2"), "calibration": str(now)}
    graph = franka_graph(FrankaArguments(trained_calibration=str(then), **given))
    by_name = {foreign.name: foreign.arguments for foreign in graph.foreign}
    for name, frame, y in (("place", "color", 0.02), ("trained_place", "trained", 0.0)):
        words = by_name[f"{name}_wrist"]
        assert words[words.index("--frame-id") + 1] == "fr3_link8"
        assert words[words.index("--child-frame-id") + 1] == f"wrist_{frame}_optical_frame"
        assert float(words[words.index("--y") + 1]) == y
    settings = {process.name: process.settings for process in graph.processes}
    assert settings["policy"]["camera_places"] is True and "arm_lag_ms" not in settings["chunk_executor"]
    plain = franka_graph(FrankaArguments(**given))
    assert "trained_place_wrist" not in {f.name for f in plain.foreign}
    assert "camera_places" not in {p.name: p.settings for p in plain.processes}["policy"]
    shown = {"robot_ip": "1", "gello": "g", "serials": ("1", "2"), "calibration": str(now)}
    watched = TeleopArguments(trained_calibration=str(then), checkpoint="c", shadow=True, **shown)
    assert {p.name: p.settings for p in teleop_graph(watched).processes}["policy"]["camera_places"] is True


@pytest.mark.parametrize("held", [{}, {"base": PLACE}, {"wrist": CameraPlace("base", PLACE.pose)}])
def test_places_of_training_that_are_not_to_be_compared_are_refused(tmp_path, held) -> None:
    now, then = tmp_path / "bench.yaml", tmp_path / "may.yaml"
    write_bench(now, BenchCalibration(cameras={"wrist": PLACE}))
    write_bench(then, BenchCalibration(cameras=held))
    given = {"robot_ip": "1", "checkpoint": "c", "serials": ("1", "2"), "trained_calibration": str(then)}
    with pytest.raises(ConfigError, match="where they are now"):
        franka_graph(FrankaArguments(calibration=str(now), **given))
    with pytest.raises(ConfigError, match="where they are now"):
        franka_graph(FrankaArguments(**given))


def test_an_image_that_is_stamped_late_gets_the_joints_of_its_capture_live_and_in_conversion() -> None:
    config = SyncConfig(views=("base", "wrist"), camera_latency_ms=(40.0, 25.0), lockstep=True)
    picture, found = np.zeros((4, 4, 3), np.uint8), []
    live, grid = ObservationSync(config), GridSync(Grid(50 * MS, 100 * MS, True, START), config)
    for core, clock in ((live, (START,)), (grid, ())):
        answers = []
        for ms in range(0, 400, 5):
            t = START + ms * MS
            answers += core.add_joints(t, np.full(7, ms / 1e3), *clock)
            answers += core.add_gripper(t, 1.0, *clock)
            if ms % 50 == 0:
                answers += core.add_image("base", t + 40 * MS, picture, *clock)
                answers += core.add_image("wrist", t + 25 * MS, picture + 1, *clock)
        found.append([o for o in answers if isinstance(o, Observation)])
    for observations in found:
        assert len(observations) >= 6
        for o in observations:
            assert (o.stamp_ns - START) % (50 * MS) == 0 and o.view_skew_ns["wrist"] == 0
            assert o.joint_positions[0] == pytest.approx((o.stamp_ns - START) / 1e9)
    with pytest.raises(ConfigError, match="1 numbers for 2 views"):
        SyncConfig(camera_latency_ms=(1.0,))


def test_a_lagging_arm_is_where_a_plan_wants_it_when_the_plan_wants_it() -> None:
    def follow(lag_ms: float, told_ms: float, source: str = "policy") -> float:
        d = Driven(arm_lag_ms=told_ms).arm_it()
        rows = d.home + np.linspace(0.0, 0.6, 61)[:, None] * np.ones(7)
        assert d.offer(d.chunk(rows, source=source)) is None
        d.run(1500)
        assert not d.violations and d.mode == "RUNNING"
        planned = np.interp(1.5, np.arange(61) * 0.05, rows[:, 0])
        return float(planned - d.positions[-1 - round(lag_ms)][0])

    assert abs(follow(80.0, 80.0)) < 0.002
    assert follow(80.0, 0.0) == pytest.approx(0.016, abs=0.002)
    assert follow(0.0, 80.0, source="teleop") == pytest.approx(follow(0.0, 0.0, source="teleop"), abs=1e-9)
