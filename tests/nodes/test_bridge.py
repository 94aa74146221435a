from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ros
rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")

from sensor_msgs.msg import JointState  # noqa: E402

from e0_msgs.msg import EpisodeEvent, ExecutorState, GripperCommand  # noqa: E402
from e0_ros import interfaces as topics  # noqa: E402
from e0_ros.conversions import rgb8_from_msg, to_ns, to_time  # noqa: E402
from e0_ros.core.camera_model import CameraModel, camera_model, transforms_of  # noqa: E402
from e0_ros.core.camera_places import CameraPlaces  # noqa: E402
from sim.bridge import Bridge, main  # noqa: E402
from sim.camera_shift import CameraShift, known_offsets  # noqa: E402
from sim.fr3_plant import Fr3Plant, reach_goal  # noqa: E402
from tests.nodes.bridge_peer import FR3, INFOS, MS, PERIOD, VIEWS, Launch, Peer, follower, stamp, trajectory  # noqa: E402


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Starts a bridge in a thread of its own, with parameters, and gives its peer."""
    stop = threading.Event()
    running: list[tuple[Bridge, threading.Thread, Peer]] = []

    def start(answer: Callable[[Peer, int], None] | None = None, **parameters: Any) -> Peer:
        values = {"width_px": 32, "height_px": 24, "judge": "true", **parameters}
        rclpy.init(args=["--ros-args", *(part for k, v in values.items() for part in ("-p", f"{k}:={v}"))])
        bridge, peer = Bridge(), Peer(answer)
        thread = threading.Thread(target=bridge.run, args=(stop,))
        thread.start()
        running.append((bridge, thread, peer))
        outputs = [p for p in bridge.publishers if p.topic_name in peer.heard]
        heard = {subscription.topic_name for subscription in bridge.subscriptions}
        inputs = [p for p in peer.node.publishers if p.topic_name in heard]
        peer.until(lambda: all(p.get_subscription_count() for p in outputs + inputs), "both sides to find each other")
        return peer

    yield start
    stop.set()
    for bridge, thread, peer in running:
        thread.join(30)
        bridge.destroy_node()
        peer.node.destroy_node()
    rclpy.try_shutdown()


def test_lockstep_episode_reaches_the_goal_in_exact_ticks(launch: Launch) -> None:
    peer = launch(follower(4), mode="lockstep")
    for topic in (topics.CLOCK, topics.JOINT_STATES, topics.GRIPPER_STATES):
        peer.until(lambda topic=topic: peer[topic], topic.name)
    reply = peer.reset("Reach-v0", 4)
    assert reply.success and reply.instruction
    first = to_ns(reply.stamp) + PERIOD
    still = lambda: stamp(peer[topics.JOINT_STATES][-1]) == stamp(peer[topics.CLOCK][-1]) == first - PERIOD  # noqa: E731
    peer.until(still, "the still scene")
    assert not peer[VIEWS[0]], "no tick before START"
    peer.start()
    peer.until(peer.finished, "done")
    ticks = [stamp(m) for m in peer[VIEWS[0]]]
    assert ticks == [first + i * PERIOD for i in range(len(ticks))]
    assert len(ticks) >= 15
    joints = [stamp(m) for m in peer[topics.JOINT_STATES] if stamp(m) >= first]
    assert len({bytes(m.data) for m in peer[VIEWS[0]]}) == len(ticks), "a picture was shown twice"
    for topic in (topics.GRIPPER_STATES, topics.CLOCK, VIEWS[1]):
        assert [stamp(m) for m in peer[topic] if stamp(m) >= first] == ticks
    assert joints == list(range(first, ticks[-1] + MS, MS))
    states = [m for m in peer[topics.SIM_STATE] if stamp(m) >= first and m.reset_id == 1][1:]
    assert [m.step for m in states] == list(range(len(ticks)))
    assert states[-1].success and states[-1].success_once and not states[-2].done
    assert peer[topics.JOINT_STATES][-1].name == list(FR3.joint_names)
    np.testing.assert_allclose(peer[topics.JOINT_STATES][-1].position, reach_goal(FR3, 4), atol=0.02)
    assert list(peer[topics.GRIPPER_STATES][-1].name) == list(FR3.gripper_joint_names)
    assert peer[topics.GRIPPER_STATES][-1].position[1] == pytest.approx(0.01)
    assert rgb8_from_msg(peer[VIEWS[0]][-1]).shape == (24, 32, 3)
    count = len(peer[topics.DIAGNOSTICS])
    peer.until(lambda: len(peer[topics.DIAGNOSTICS]) > count + 1, "diagnostics")
    values = {v.key: v.value for v in peer[topics.DIAGNOSTICS][-1].status[0].values}
    assert values["violations"] == "0" and int(values["setpoints"]) == 50 * (len(ticks) - 1)
    assert len(peer[VIEWS[0]]) == len(ticks), "no tick after done"


def test_the_cameras_say_what_they_are_and_where(launch: Launch) -> None:
    peer = launch(follower(4), mode="lockstep")
    peer.reset("Reach-v0", 4)
    peer.start()
    peer.until(peer.finished, "done")
    peer.until(lambda: all(len(peer[i]) == len(peer[v]) for i, v in zip(INFOS, VIEWS, strict=True)), "calibrations")
    assert [stamp(m) for m in peer[INFOS[1]]] == [stamp(m) for m in peer[VIEWS[1]]]
    frames = {t.child_frame_id: t for m in peer[topics.TF_STATIC] for t in m.transforms}
    assert {name: t.header.frame_id for name, t in frames.items()} == {
        "base_color_optical_frame": "fr3_link0",
        "wrist_color_optical_frame": "fr3_link8",
    }
    known = transforms_of(peer[topics.TF_STATIC])
    for view, info, image in zip(("base", "wrist"), INFOS, VIEWS, strict=True):
        assert peer[info][-1].header.frame_id == peer[image][-1].header.frame_id
        told = camera_model(peer[info][-1], known, "fr3_link0")
        true = Fr3Plant(width_px=32, height_px=24).cameras()[view]
        assert (told.width_px, told.height_px, told.parent) == (32, 24, true.parent)
        np.testing.assert_allclose(told.intrinsics, true.intrinsics)
        np.testing.assert_allclose(told.pose, true.pose, atol=1e-9)


def test_a_camera_that_was_moved_tells_its_old_place_with_the_stamp_of_the_scenes_first_tick(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Fr3Plant.cameras

    def nominal(plant: Fr3Plant) -> dict[str, CameraModel]:
        cameras = own(plant)
        shift = CameraShift(10.0).poses(cameras, np.array([0.5, 0.0, 0.3]), 0)
        return {view: replace(c, pose=shift.get(view, c.pose)) for view, c in cameras.items()}

    monkeypatch.setattr(Fr3Plant, "nominal_cameras", nominal)
    peer = launch(follower(4), mode="lockstep")
    first_ns = to_ns(peer.reset("Reach-v0", 4).stamp) + PERIOD
    old = "base_trained_optical_frame"
    peer.until(lambda: any(stamp(t) == first_ns for m in peer[topics.TF_STATIC] for t in m.transforms), "the places")
    assert {t.child_frame_id for m in peer[topics.TF_STATIC] for t in m.transforms} >= {
        old,
        "wrist_color_optical_frame",
    }
    places = CameraPlaces("fr3_link0")
    for message in peer[topics.TF_STATIC]:
        places.hear(message)
    plant = Fr3Plant(width_px=32, height_px=24)
    offsets = places.offsets(["base", "wrist"])
    assert list(offsets) == ["base"] and places.stamp_ns == first_ns
    np.testing.assert_allclose(offsets["base"], known_offsets(plant)["base"], atol=2e-9)
    assert np.abs(offsets["base"]).max() > 0.05


def test_lockstep_gives_the_same_bits_whatever_the_delays(launch: Launch) -> None:
    peer = launch(None, mode="lockstep")
    digests = []
    for delays in (None, random.Random(1), random.Random(2)):
        peer.answer = follower(9, delays)
        assert peer.reset(seed=9, max_steps=12).success
        peer.until(lambda: not peer.done(), "the new scene")
        peer.start()
        peer.until(peer.finished, "done")
        last = peer[topics.SIM_STATE][-1]
        assert last.step == 12 and not last.success
        digests.append(peer.digest())
    assert len(set(digests)) == 1
    clock = [stamp(m) for m in peer[topics.CLOCK]]
    assert clock == sorted(clock)
    assert peer.reset(seed=10).success


def test_lockstep_says_what_is_missing_and_ends_the_episode(launch: Launch, capfd: pytest.CaptureFixture[str]) -> None:
    def forgets_the_trajectory(peer: Peer, now_ns: int) -> None:
        peer.commands += 1
        peer.say(now_ns)

    peer = launch(None, mode="lockstep", timeout_s=0.3)
    for answer, missing in (
        (None, "the executor's state did not come"),
        (forgets_the_trajectory, "1 of 1 trajectories"),
    ):
        peer.answer = answer
        assert peer.reset().success
        peer.until(lambda: not peer.done(), "the new scene")
        peer.start()
        peer.until(peer.done, "the end")
        assert not peer[topics.SIM_STATE][-1].success_once
        assert missing in capfd.readouterr().err
        clock, count = peer[topics.CLOCK], len(peer[topics.DIAGNOSTICS])
        peer.node.create_subscription(topics.message_class(topics.CLOCK.type), topics.CLOCK.name, lambda _: None, 1)
        peer.until(lambda n=count: len(peer[topics.DIAGNOSTICS]) > n + 1, "diagnostics")
        assert [stamp(m) for m in clock] == sorted(map(stamp, clock)), "a new listener turned the clock back"


def test_lockstep_goes_on_while_disarmed_and_stands_still_after_end(launch: Launch) -> None:
    peer = launch(lambda p, now_ns: p.say(now_ns, ExecutorState.DISARMED), mode="lockstep")
    first = to_ns(peer.reset().stamp)
    peer.trajectory.publish(trajectory(0, FR3.home.tolist(), FR3.home.tolist(), 1))
    peer.start()
    peer.until(lambda: peer.answered >= first + 3 * PERIOD, "three ticks")
    peer.start(EpisodeEvent.END)
    positions = {tuple(m.position) for m in peer[topics.JOINT_STATES]}
    assert len(positions) == 1, "a command outside a tick was played"
    count = len(peer[topics.DIAGNOSTICS])
    peer.until(lambda: len(peer[topics.DIAGNOSTICS]) > count, "diagnostics")
    ticks = len(peer[VIEWS[0]])
    peer.until(lambda: len(peer[topics.DIAGNOSTICS]) > count + 1, "diagnostics")
    assert len(peer[VIEWS[0]]) == ticks


def test_lockstep_impedance(launch: Launch) -> None:
    def stream(peer: Peer, now_ns: int) -> None:
        peer.say(now_ns)
        target = JointState(position=(FR3.home + 1e-9 * (now_ns - first)).tolist())
        target.header.stamp = to_time(now_ns)
        peer.target.publish(target)

    peer = launch(stream, mode="lockstep", controller="impedance")
    first = to_ns(peer.reset(max_steps=5).stamp) + PERIOD
    peer.start()
    peer.until(peer.finished, "done")
    assert peer[topics.JOINT_STATES][-1].position[0] == pytest.approx(0.2)
    assert peer[topics.JOINT_STATES][-2].position[0] == pytest.approx(0.2), "zero-order hold"


def test_unknown_task_is_refused_with_the_closest(launch: Launch) -> None:
    peer = launch(None, mode="lockstep")
    reply = peer.reset("Reach-v1")
    assert not reply.success and "did you mean 'Reach-v0'" in reply.message


def test_realtime_streams_without_an_episode_and_plays_commands(launch: Launch) -> None:
    peer = launch(None, mode="realtime")
    peer.until(lambda: peer[topics.JOINT_STATES], "joints")
    start = peer[topics.JOINT_STATES][-1].position
    before_ns = time.time_ns()
    peer.trajectory.publish(trajectory(0, list(start), FR3.home.tolist(), 300))
    peer.gripper.publish(GripperCommand(opening=0.5))
    peer.until(lambda: np.abs(np.array(peer[topics.JOINT_STATES][-1].position) - FR3.home).max() < 1e-9, "home")
    peer.until(lambda: peer[topics.GRIPPER_STATES][-1].position[0] == pytest.approx(0.02), "the gripper")
    peer.until(lambda: len(peer[VIEWS[0]]) > 10, "pictures")
    steps = np.diff([stamp(m) for m in peer[VIEWS[0]]])
    assert min(steps) == PERIOD, "a loaded machine may skip time, but never crowd it"
    assert len({stamp(m) for m in peer[VIEWS[1]]} & {stamp(m) for m in peer[VIEWS[0]]}) >= 9
    joint_steps = np.diff([stamp(m) for m in peer[topics.JOINT_STATES]])
    assert min(joint_steps) == MS
    assert abs(stamp(peer[topics.JOINT_STATES][-1]) - before_ns) < 60_000 * MS
    assert not peer[topics.CLOCK]
    assert {m.step for m in peer[topics.SIM_STATE]} == {0}


def test_realtime_counts_steps_from_start_to_done(launch: Launch) -> None:
    peer = launch(None, mode="realtime", control_period_ms=20)
    assert peer.reset(max_steps=6).success
    peer.start()
    peer.until(peer.done, "done")
    count = len(peer[topics.SIM_STATE])
    peer.until(lambda: len(peer[topics.SIM_STATE]) > count + 3, "more states")
    states = [m for m in peer[topics.SIM_STATE] if m.reset_id == 1]
    steps = [m.step for m in states]
    assert steps == sorted(steps) and max(steps) == 6
    assert [m.done for m in states] == [m.step == 6 for m in states]


def test_realtime_gives_up_time_that_it_cannot_make_up(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A simulator twice too slow: stamps stay with the wall clock, and the overrun is told."""
    step = Fr3Plant.step

    def slow(*args: Any) -> None:
        time.sleep(0.002)
        step(*args)

    monkeypatch.setattr(Fr3Plant, "step", slow)
    peer = launch(None, mode="realtime", control_period_ms=20)
    peer.until(lambda: peer[topics.SIM_STATE] and peer[topics.SIM_STATE][-1].overrun_ns > 500 * MS, "an overrun")
    joints = [stamp(m) for m in peer[topics.JOINT_STATES]]
    assert (np.diff(joints) > 0).all()
    assert joints[-1] - joints[0] > 1.2 * len(joints) * MS, "physics made less than the clock"
    assert "slower than real time" in capfd.readouterr().err


def test_the_judges_verdict_says_how_late_a_command_came(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hear, judge, deaf, judged = Bridge.hear, Bridge.log_judgement, threading.Event(), threading.Event()
    monkeypatch.setattr(Bridge, "hear", lambda bridge: None if deaf.is_set() else hear(bridge))
    monkeypatch.setattr(Bridge, "log_judgement", lambda bridge: (judge(bridge), judged.set()))
    peer = launch(None, mode="realtime")
    reset = peer.reset("Reach-v0", 3, 20)
    heard = peer[topics.JOINT_STATES]
    peer.until(lambda: heard and stamp(heard[-1]) > to_ns(reset.stamp), "the new scene")
    start = list(peer[topics.JOINT_STATES][-1].position)
    deaf.set()
    peer.trajectory.publish(trajectory(0, start, start))
    time.sleep(0.15)
    deaf.clear()
    peer.start()
    peer.until(judged.is_set, "the verdict")
    late = re.search(r"judge: 0 violations in \d+ set-points; a command came (\d+) ms late", capfd.readouterr().err)
    assert late and float(late[1]) >= 140


def test_realtime_leaves_pictures_out_rather_than_wait_for_them(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A renderer that takes 130 ms of physics: every third picture is made, of its own moment; nothing else waits."""
    start, finish, begun = Fr3Plant.start_render, Fr3Plant.finish_render, []

    def begin(plant: Fr3Plant) -> None:
        begun.append(plant._steps)
        start(plant)

    def end(plant: Fr3Plant) -> Any:
        assert plant.pictures_ready(), "it was made to wait"
        return finish(plant)

    monkeypatch.setattr(Fr3Plant, "start_render", begin)
    monkeypatch.setattr(Fr3Plant, "finish_render", end)
    monkeypatch.setattr(Fr3Plant, "pictures_ready", lambda plant: plant._steps >= begun[-1] + 130)
    peer = launch(None, mode="realtime")
    steps = lambda: np.diff([stamp(m) for m in peer[VIEWS[0]]])  # noqa: E731
    peer.until(lambda: 3 * PERIOD in steps(), "pictures one after the other")
    assert min(steps()) == 3 * PERIOD, "a loaded machine may skip time, but never crowd it"
    values = lambda: {v.key: int(v.value) for m in peer[topics.DIAGNOSTICS] for v in m.status[0].values}  # noqa: E731
    peer.until(lambda: peer[topics.DIAGNOSTICS] and values()["pictures_left_out"] >= 2, "diagnostics")
    assert min(np.diff([stamp(m) for m in peer[topics.JOINT_STATES]])) == MS
    assert "left out since the reset" in capfd.readouterr().err


def test_a_command_counts_from_its_sending_even_if_heard_late(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands sent while the bridge is busy with its pictures: the motion starts with their sending, not after."""
    finish, busy_ms, sent = Fr3Plant.finish_render, 90, []

    def slow(plant: Fr3Plant) -> Any:
        if len(sent) < 5:
            start = plant.joint_state()[0]
            sent.append((time.time_ns(), start[0]))
            peer.trajectory.publish(trajectory(0, start.tolist(), (start + 0.001).tolist(), 20))
        time.sleep(busy_ms / 1e3)
        return finish(plant)

    peer = launch(None, mode="realtime", control_period_ms=200)
    monkeypatch.setattr(Fr3Plant, "finish_render", slow)
    peer.until(lambda: len(sent) == 5, "five commands")
    end = sent[-1][1] + 0.001
    peer.until(lambda: peer[topics.JOINT_STATES][-1].position[0] > end - 1e-9, "the last move")
    late_ms = []
    for sent_ns, start in sent:
        moved = next(stamp(m) for m in peer[topics.JOINT_STATES] if m.position[0] > start + 1e-9)
        late_ms.append((moved - sent_ns) / MS)
    assert min(late_ms) < busy_ms / 2, late_ms


def test_the_judge_is_heard_on_diagnostics(launch: Launch) -> None:
    peer = launch(None, mode="realtime")
    peer.until(lambda: peer[topics.JOINT_STATES], "joints")
    jump = (FR3.home + 0.1).tolist()
    peer.trajectory.publish(trajectory(0, jump, jump, 20))
    peer.until(lambda: any(m.status[0].level == b"\x02" for m in peer[topics.DIAGNOSTICS]), "an error")
    status = peer[topics.DIAGNOSTICS][-1].status[0]
    assert status.message == "limits violated"
    assert int({v.key: v.value for v in status.values}["violations"]) > 0


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("simulator:=fr3_plnt", "did you mean 'fr3_plant'"),
        ("task:=Reach-v1", "did you mean 'Reach-v0'"),
        ("embodiment:=fr4", "did you mean 'fr3'"),
        ("views:=[Front]", "[a-z][a-z0-9_]"),
        ("width_px:=1", "allowed is 16.0 to 4096.0"),
    ],
)
def test_a_wrong_parameter_is_one_line_and_exit_2(
    parameter: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--ros-args", "-p", parameter]) == 2
    error = capsys.readouterr().err
    assert expected.replace(".0", "") in error.replace(".0", "") and error.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(number: int) -> None:
    command = [sys.executable, "-m", "sim.bridge", "--ros-args", "-p", "judge:=true"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        rclpy.init()
        peer = Peer()
        peer.until(lambda: peer[topics.JOINT_STATES], "joints")
        process.send_signal(number)
        _, error = process.communicate(timeout=90)
        peer.node.destroy_node()
        rclpy.shutdown()
    assert process.returncode == 0
    assert "judge: 0 violations" in error and "Traceback" not in error
