"""Bytes that are no message against every subscription of every node: nobody dies, and memory stays bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from std_msgs.msg import Float64

from e0_policy.embodiment import load_embodiment
from e0_ros import interfaces
from e0_ros.core.executor_types import Mode, Status
from tests.faults.attack import Attack, odd_chunk
from tests.faults.rig import MS, Rig
from tests.faults.scale import FULL, scaled
from tests.franka_msgs_overlay import overlay_environment

pytestmark = [pytest.mark.ros, pytest.mark.timeout(3000 if FULL else 300)]
GROWTH_LIMIT = 256 * 2**20
BENCH: dict[str, list[str]] = {
    "gello_teleop": ["port:=/dev/nowhere"],
    "arm_session": [],
    "gripper": [],
    "experts": ["simulator:=fr3_plant", "embodiment:=fr3"],
    "estop": [],
    "bridge": ["views:=[base]", "width_px:=32", "height_px:=32", "joint_state_rate_hz:=100", "fci:=jazzy"],
}
"""Who else there is, with parameters: attacked together, for what one hears, most of the others do."""


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    arm = load_embodiment("fr3")
    rows = np.column_stack([np.tile(arm.home, (20, 1)), np.ones(20)])
    np.savez(tmp_path / "plan.npz", rows=rows, period_ns=50_000_000, embodiment="fr3")
    return tmp_path / "plan.npz"


def victims(recording: Path) -> dict[str, list[str]]:
    """Parameters of each node."""
    bags = recording.parent / "bags"
    return {
        "chunk_executor": [],
        "observation_sync": ["views:=[base]"],
        "policy": ["policy:=replay", f"recording:={recording}", "camera_places:=true"],
        "episode_recorder": ["views:=[base]", f"bag_dir:={bags}", "min_free_bytes:=0"],
        "bridge": ["views:=[base]", "width_px:=32", "height_px:=32", "joint_state_rate_hz:=100"],
    }


@pytest.fixture
def attack(ros: None, tmp_path: Path) -> Iterator[Callable[[Mapping[str, list[str]]], Attack]]:
    made: list[Attack] = []

    def begin(nodes: Mapping[str, list[str]]) -> Attack:
        made.append(Attack(nodes, tmp_path))
        made[-1].find()
        return made[-1]

    yield begin
    for each in made:
        each.close()


@pytest.mark.parametrize("name", ["chunk_executor", "observation_sync", "policy", "episode_recorder", "bridge"])
def test_no_bytes_end_a_node_or_fill_its_memory(
    attack: Callable[[Mapping[str, list[str]]], Attack], recording: Path, name: str, record_property
) -> None:
    a, rng = attack({name: victims(recording)[name]}), np.random.default_rng(4)
    each = scaled(150, 20_000)
    start, end = (interfaces.message_class(s.type) for s in (interfaces.START_EPISODE, interfaces.END_EPISODE))
    for record in (False, True)[: 1 + (name == "episode_recorder")]:
        if record:
            assert a.call(start, interfaces.START_EPISODE.name).success
        a.publish_all(each, rng)
        if record:
            a.call(end, interfaces.END_EPISODE.name, outcome="unlabelled")
            assert a.call(start, interfaces.START_EPISODE.name).success, "it records on"
    growth = a.victims[0].growth()
    record_property("figure", f"{name}: {each * len(a.topics)} on {len(a.topics)} topics, {growth / 2**20:+.0f} MiB")
    assert growth < GROWTH_LIMIT
    assert a.close() == {name: 0}


def test_no_message_ends_an_executor_that_is_armed(rig: Callable[..., Rig], record_property) -> None:
    """Whose chunks come further than a disarmed one's; at all speeds, with an arm that follows."""
    r, rng, count = rig("source_silence_ms:=60000.0"), np.random.default_rng(6), scaled(1500, 100_000)
    core, states = r.node.core, list[Status]()
    for number in range(count):
        core.reset_stop()
        if core.mode is not Mode.RUNNING:
            core.arm(r.now_ns)
        r.node._on_speed(Float64(data=float(rng.choice((0.0, 0.02, 0.5, 1.0)))))
        r.node._on_chunk(odd_chunk(r.now_ns, number, rng))
        for _ in range(int(rng.integers(1, 4))):
            r.now_ns += 4 * MS
            r.measure()
            r.node.tick()
        states.append(core.status(r.now_ns))
        assert np.isfinite(states[-1].reference.position).all() and len(states[-1].last_refusal) <= 500
    ran, counts = sum(state.mode is Mode.RUNNING for state in states), states[-1]
    told = f"{counts.accepted} accepted, {counts.refused} refused, it lives"
    record_property("figure", f"{count} chunks while armed: {told}")
    assert counts.accepted > count / 50 and counts.refused > count / 5 and ran > count / 50


def test_no_bytes_end_who_works_with_an_arm_or_fill_their_memory(tmp_path: Path, record_property) -> None:
    each = scaled(150, 20_000)
    command = [sys.executable, "-m", "tests.faults.attack", str(tmp_path), str(each), json.dumps(BENCH)]
    done = subprocess.run(command, env=overlay_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    mib = ", ".join(f"{name} {growth / 2**20:+.0f}" for name, growth in told["growth"].items())
    record_property("figure", f"{each * len(told['topics'])} on {len(told['topics'])} topics: {mib} MiB")
    assert interfaces.ROBOT_STATE.name in told["topics"] and interfaces.SIM_STATE.name in told["topics"]
    assert set(told["growth"]) == set(BENCH) and max(told["growth"].values()) < GROWTH_LIMIT
    assert told["ended"] == dict.fromkeys(BENCH, 0)
