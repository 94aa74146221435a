"""The real policy node with policies whose inference the tests hold and release."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_policy.types import Observation, Stale
from e0_ros import interfaces
from e0_ros.config import ConfigError
from e0_ros.conversions import chunk_from_msg, observation_to_msg, stale_to_msg, to_ns, to_time
from e0_ros.core.decode import resize_with_pad
from e0_ros.nodes import policy as policy_node
from e0_ros.nodes.policy import PolicyConfig, PolicyNode, make_guard
from tests.core.test_view_check import seen, table
from tests.nodes.policy_rig import ARM, TICK, FakePolicy, Rig

pytestmark = pytest.mark.ros
NOW = 500_000_000_000


@pytest.fixture
def rig(ros: None) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**parameters: Any) -> Rig:
        rigs.append(Rig(FakePolicy(), **parameters))
        return rigs[-1]

    yield make
    for made in rigs:
        made.close()


def test_lockstep_answers_each_observation_once_and_plans_on_the_plan_in_force(rig: Callable[..., Rig]) -> None:
    r = rig(policy="e0", lockstep=True)
    for tick in range(5):
        r.observe(NOW + tick * TICK)
        answers = r.answers(tick + 1)
        r.state(NOW + tick * TICK, answers[tick // 2 * 2])
    assert [to_ns(a.in_reply_to) for a in r.chunks] == [NOW + tick * TICK for tick in range(5)]
    assert [a.status for a in r.chunks] == [0, 2, 0, 2, 0]
    assert r.chunks[1].reason == "the plan in force goes on"
    assert [a.sequence for a in r.chunks] == [1, 2, 3, 4, 5]
    first = chunk_from_msg(r.chunks[0])
    assert (first.source, first.checkpoint, first.seed) == ("policy", "fake-1", 3)
    assert len(first.session) == 12
    plans = [plan for _, plan in r.policy.seen]
    assert plans[0] is None
    assert [p.rows[0, 0] for p in plans[1:]] == [0.1, 0.2]
    assert [p.t0_ns for p in plans[1:]] == [NOW, NOW + 2 * TICK]
    assert [p.committed_until_ns for p in plans[1:]] == [NOW + 2 * TICK, NOW + 4 * TICK]


def test_lockstep_waits_for_the_executor_state_of_the_tick_before(rig: Callable[..., Rig]) -> None:
    r = rig(policy="e0", lockstep=True)
    r.observe(NOW)
    chunk = r.answers(1)[0]
    r.observe(NOW + 2 * TICK)
    r.state(NOW - TICK, chunk)
    count = len(r.diagnostics)
    r.until(lambda: len(r.diagnostics) > count)
    assert len(r.policy.seen) == 1, "it inferred before the state of the tick before had come"
    r.state(NOW, chunk)
    assert r.answers(2)[1].status == 0
    assert r.policy.seen[1][1] is not None


def test_lockstep_answers_a_stale_observation_with_its_reason(rig: Callable[..., Rig]) -> None:
    r = rig(policy="e0", lockstep=True)
    stale = Stale(NOW, "wrist", "frozen: the same stamp came 3 times", 5)
    r.observations.publish(stale_to_msg(stale, 0, "fr3_link0", "fr3", NOW))
    answer = r.answers(1)[0]
    assert (answer.status, to_ns(answer.in_reply_to)) == (ChunkMsg.STATUS_NONE, NOW)
    assert answer.reason == "stale observation: wrist: frozen: the same stamp came 3 times"
    assert not r.policy.seen


@pytest.mark.parametrize("kind", [ZeroDivisionError, MemoryError])
def test_an_exception_ends_in_none_with_the_cause_and_the_node_lives_on(
    rig: Callable[..., Rig], kind: type[Exception], record_property
) -> None:
    r = rig(policy="e0", lockstep=True)
    r.policy.fault = kind("bad weights")
    r.observe(NOW)
    answer = r.answers(1)[0]
    assert (answer.status, answer.reason) == (ChunkMsg.STATUS_NONE, f"error: {kind.__name__}: bad weights")
    r.until(lambda: "bad weights" in r.diagnostics[-1].status[0].message)
    assert r.diagnostics[-1].status[0].level == b"\x02"
    r.policy.fault = None
    r.state(NOW)
    r.observe(NOW + TICK)
    assert r.answers(2)[1].status == ChunkMsg.STATUS_OK
    r.until(lambda: r.diagnostics[-1].status[0].level == b"\x00")
    record_property("figure", f"{kind.__name__}: answered at once with none and the cause; the node lives on")


def test_an_observation_of_another_arm_is_refused(rig: Callable[..., Rig]) -> None:
    r = rig(policy="e0", lockstep=True)
    r.observe(NOW, embodiment="panda")
    assert "observation is of 'panda'; this policy is for 'fr3'" in r.answers(1)[0].reason
    assert not r.policy.seen


def test_a_policy_hears_how_far_a_camera_was_moved_before_it_plans_in_the_new_scene(rig: Callable[..., Rig]) -> None:
    r = rig(policy="e0", lockstep=True, camera_places=True)
    topic = interfaces.TF_STATIC
    publisher = r.rig.create_publisher(TFMessage, topic.name, topic.qos.profile())
    r.observe(NOW)  # before its scene's transforms have come
    transforms = []
    for frame, z in ((interfaces.trained_frame("base"), 0.5), (interfaces.optical_frame("base"), 0.75)):
        moved = TransformStamped(child_frame_id=frame)
        moved.header.frame_id, moved.header.stamp = ARM.base_frame, to_time(NOW)
        moved.transform.translation.z, moved.transform.rotation.w = z, 1.0
        transforms.append(moved)
    publisher.publish(TFMessage(transforms=transforms))
    r.answers(1)
    assert r.policy.offsets == [{"base": [-0.25, 0.0, 0.0]}], "nearer by 0.25 m"


def test_live_the_latest_observation_wins_while_inference_runs(rig: Callable[..., Rig]) -> None:
    r = rig(policy="e0", max_observation_age_ms=10000.0)
    r.policy.gate.clear()
    start = r.now_ns()
    r.observe(start)
    r.until(lambda: r.policy.seen)
    stamps = [start + (3 + i) * TICK for i in range(4)]
    for stamp in stamps:
        r.observe(stamp)
    r.until(lambda: r.node._session.counts["replaced"] == 3)
    r.policy.gate.set()
    answers = r.answers(2)
    assert [to_ns(a.in_reply_to) for a in answers] == [start, stamps[-1]]
    assert answers[0].latency_ns > 0


def test_live_old_observations_are_dropped_and_none_is_not_repeated(rig: Callable[..., Rig]) -> None:
    r = rig(policy="e0")
    old = r.now_ns() - 2_000_000_000
    for i in range(5):
        r.observe(old + i)
        r.until(lambda done=i: r.node._session.counts["too old"] + r.node._session.counts["replaced"] > done)
    assert not r.policy.seen
    assert r.chunks[0].status == ChunkMsg.STATUS_NONE and "observation too old" in r.chunks[0].reason
    now = r.now_ns()
    r.observe(now)
    r.until(lambda: r.policy.seen)
    r.until(lambda: to_ns(r.chunks[-1].in_reply_to) == now)
    assert r.chunks[-1].status == ChunkMsg.STATUS_OK
    assert [c.sequence for c in r.chunks] == list(range(1, len(r.chunks) + 1)), "a sequence number was skipped"


def test_it_prepares_the_next_plan_when_the_answer_is_published(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    r = rig(policy="e0", lockstep=True)
    publish, prepare = r.node._chunks.publish, r.policy.prepare
    order: list[str] = []
    monkeypatch.setattr(r.node._chunks, "publish", lambda msg: (order.append("published"), publish(msg)))
    r.node._session._prepare = lambda: (prepare(), order.append("prepared"))
    r.observe(NOW)
    r.until(lambda: r.policy.prepared)
    assert order[:2] == ["published", "prepared"] and r.policy.prepared == [1]


def test_a_reset_forgets_the_episode(rig: Callable[..., Rig]) -> None:
    r = rig(policy="e0", lockstep=True)
    r.observe(NOW)
    chunk = r.answers(1)[0]
    r.state(NOW, chunk)
    future = r.client.call_async(Trigger.Request())
    r.until(future.done)
    assert future.result().success and r.policy.resets == 1
    r.observe(NOW + TICK)
    assert r.answers(2)[1].status == ChunkMsg.STATUS_OK
    assert r.policy.seen[1] == (NOW + TICK, None)


def test_a_reset_does_not_wait_for_an_inference_that_hangs_and_nothing_of_before_it_is_published(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_node, "LOCKSTEP_TIMEOUT_S", 0.5)
    monkeypatch.setattr(policy_node, "RESET_S", 0.1)
    r = rig(policy="e0", max_observation_age_ms=10e3)
    r.policy.gate.clear()
    r.observe(r.now_ns())
    r.until(lambda: r.policy.seen)
    future = r.client.call_async(Trigger.Request())
    r.until(future.done)
    assert future.result().success and "still infers" in future.result().message and not r.policy.resets
    r.until(lambda: "the policy has inferred for" in r.diagnostics[-1].status[0].message)
    assert r.diagnostics[-1].status[0].level == b"\x02" and "0.5 are allowed" in r.diagnostics[-1].status[0].message
    later = r.now_ns()
    r.observe(later)
    r.policy.gate.set()
    chunk = r.answers(1)[0]
    assert to_ns(chunk.in_reply_to) == later and r.policy.resets == 1, "the plan of before the reset is dropped"
    assert r.policy.seen[1] == (later, None)
    r.until(lambda: r.diagnostics[-1].status[0].level == b"\x00")


def test_an_inference_may_take_as_long_as_a_plan_or_as_an_observation_may_be_old(rig: Callable[..., Rig]) -> None:
    r = rig(policy="e0", max_observation_age_ms=150.0)
    assert r.node.longest_s == 10.0, "the first may compile"

    def planned() -> bool:
        r.observe(r.now_ns())
        r.until(lambda: r.chunks)
        return r.chunks[-1].status == ChunkMsg.STATUS_OK

    r.until(planned)
    assert r.node.longest_s == pytest.approx(4 * TICK / 1e9)
    r.node._plan_ns = TICK
    assert r.node.longest_s == pytest.approx(0.15)


def test_a_policy_whose_reset_fails_says_so_and_gets_no_plan_out_before_it_succeeds(rig: Callable[..., Rig]) -> None:
    r, reset = rig(policy="e0", lockstep=True), FakePolicy.reset
    r.policy.reset = lambda: 1 / 0
    future = r.client.call_async(Trigger.Request())
    r.until(future.done)
    assert not future.result().success and "ZeroDivisionError" in future.result().message
    r.observe(NOW)
    assert "ZeroDivisionError" in r.answers(1)[0].reason and not r.policy.seen
    r.policy.reset = lambda: reset(r.policy)
    r.observe(NOW + TICK)
    assert r.answers(2)[1].status == ChunkMsg.STATUS_OK and r.policy.resets == 1


def test_a_node_whose_policy_never_returns_answers_and_ends_at_the_first_signal(ros: None) -> None:
    code = """
import sys, threading
from e0_ros.nodes.policy import PolicyNode
from e0_ros.process import run_node

class Endless:
    embodiment, checkpoint, execution_horizon = "fr3", "", 2
    def reset(self): pass
    def infer(self, observation, plan):
        print("infers", flush=True)
        threading.Event().wait()

sys.exit(run_node(lambda: PolicyNode(Endless()), ["--ros-args", "-p", "policy:=e0", "-p", "lockstep:=true"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    node, topic = Node("rig", start_parameter_services=False), interfaces.OBSERVATION
    state = interfaces.EXECUTOR_STATE
    node.create_publisher(interfaces.message_class(state.type), state.name, state.qos.profile())
    publisher = node.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())
    client = node.create_client(Trigger, interfaces.RESET_POLICY.name)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        end = time.monotonic() + 90.0
        while not (publisher.get_subscription_count() and client.service_is_ready()):
            assert time.monotonic() < end and process.poll() is None
            executor.spin_once(timeout_sec=0.02)
        observation = Observation(NOW, {}, ARM.home, 1.0, embodiment="fr3", joint_names=ARM.joint_names)
        publisher.publish(observation_to_msg(observation, ARM.base_frame, NOW))
        assert process.stdout is not None and process.stdout.readline() == b"infers\n"
        future = client.call_async(Trigger.Request())
        executor.spin_until_future_complete(future, 60.0)
        assert future.done() and future.result().success
        process.terminate()
        assert process.wait(60.0) == 0
    finally:
        process.kill()
        process.wait()
        executor.shutdown()
        node.destroy_node()


def test_a_policy_of_another_arm_is_refused(ros: None) -> None:
    with pytest.raises(ValueError, match="rows are for 'fr3'; this node drives 'panda'"):
        PolicyNode(FakePolicy(), parameter_overrides=[Parameter("embodiment", value="panda")])


def test_replay_of_a_file_through_the_node(ros: None, tmp_path: Path) -> None:
    rows = np.linspace(0, 1, 24 * 8).reshape(24, 8)
    np.savez(tmp_path / "rows.npz", rows=rows, period_ns=TICK, embodiment="fr3")
    policy = PolicyNode(parameter_overrides=[Parameter("recording", value=str(tmp_path / "rows.npz"))])
    assert policy._session.policy.execution_horizon == 8
    output = policy._session.policy.infer(Observation(NOW, {}, ARM.home, 1.0), None)
    np.testing.assert_array_equal(output.rows, rows[:16])
    policy.destroy_node()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["policy:=e1"], "allowed are e0, replay"),
        (["policy:=replay"], "needs a bag or an .npz file"),
        (["recording:=/nowhere"], "nothing there to replay"),
        (["policy:=e0", "checkpoint:=/nowhere"], "needs an existing checkpoint"),
        (["policy:=e0", "checkpoint:={folder}/model.pt"], "never opened"),
        (["recordin:=x"], "did you mean 'recording'?"),
    ],
)
def test_a_bad_start_ends_with_one_line_and_status_2(
    arguments: list[str], text: str, tmp_path: Path, record_property
) -> None:
    (tmp_path / "model.pt").write_bytes(b"a pickle")
    command = [sys.executable, "-m", "e0_ros.nodes.policy", "--ros-args"]
    for argument in arguments:
        command += ["-p", argument.format(folder=tmp_path)]
    begin_s = time.monotonic()
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert process.returncode == 2
    assert text in process.stderr and len(process.stderr.strip().splitlines()) == 1
    if "checkpoint" in arguments[-1]:
        after_s = time.monotonic() - begin_s
        record_property("figure", f"a checkpoint that is none: the node ends after {after_s:.1f} s")
        if after_s > 5.0:
            record_property("beyond", f"the node ends after {after_s:.1f} s")


def test_in_the_shadow_nothing_of_the_policy_reaches_the_executor_and_its_error_is_told(
    rig: Callable[..., Rig],
) -> None:
    r = rig(policy="e0", shadow=True, max_observation_age_ms=10000.0)
    assert r.rig.count_publishers(interfaces.ACTION_CHUNK.name) == 0
    last = 0

    def figures() -> dict[str, str]:
        nonlocal last
        if (now := r.now_ns()) - last >= TICK:
            r.observe(now)
            last = now
        return {value.key: value.value for value in r.diagnostics[-1].status[0].values}

    r.until(lambda: float(figures().get("shadow plans", 0)) >= 1 and r.chunks)
    told = figures()
    assert float(told["shadow ahead [ms]"]) == 150.0, "the last row of a plan of four"
    assert float(told["shadow error [rad]"]) > 0.1 and float(told["shadow staying put [rad]"]) == 0.0
    assert r.diagnostics[-1].status[0].message == "policy only watches"
    assert all(plan is None for _, plan in r.policy.seen)


def test_a_camera_that_moved_since_training_is_said_at_the_start_of_an_episode(
    rig: Callable[..., Rig], tmp_path: Path
) -> None:
    rng, scene = np.random.default_rng(7), table()
    np.savez_compressed(tmp_path / "views.npz", base=seen(scene, rng), wrist=seen(scene, rng))
    r = rig(checkpoint=str(tmp_path), overlay_dir=str(tmp_path / "overlays"), max_observation_age_ms=10e3)

    def said(words: str) -> bool:
        statuses = [status for msg in r.diagnostics[-1:] for status in msg.status]
        return any(words in f"{s.message} {[v.value for v in s.values]}" for s in statuses)

    r.until(lambda: said("not compared yet"))
    r.observe(r.now_ns(), base=resize_with_pad(seen(scene, rng), 224, 224))
    r.until(lambda: said("base where it was"))
    moved = resize_with_pad(seen(scene, rng, 30.0), 224, 224)
    r.observe(r.now_ns(), base=moved)
    r.answers(2)
    assert said("base where it was"), "looked at once an episode"
    r.client.call_async(Trigger.Request())
    r.until(lambda: r.policy.resets >= 1)
    r.observe(r.now_ns(), base=moved)
    r.until(lambda: said("a camera has moved: base"))
    assert (tmp_path / "overlays" / "view_base.png").stat().st_size > 1000
    assert not (tmp_path / "overlays" / "view_wrist.png").exists()


def test_pictures_of_training_that_cannot_be_read_are_refused(ros: None, tmp_path: Path) -> None:
    (tmp_path / "views.npz").write_bytes(b"PK no pictures")
    with pytest.raises(ConfigError, match="copy the checkpoint again"):
        make_guard(PolicyConfig(checkpoint=str(tmp_path)))
    np.savez_compressed(tmp_path / "views.npz", base=np.zeros((4, 4)))
    with pytest.raises(ConfigError, match="base is no picture"):
        make_guard(PolicyConfig(checkpoint=str(tmp_path)))
    assert make_guard(PolicyConfig(checkpoint=str(tmp_path), lockstep=True)) is None
    assert make_guard(PolicyConfig(checkpoint=str(tmp_path / "none"))) is None
