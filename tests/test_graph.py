import itertools
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from e0_ros.config import ConfigError, from_mapping
from e0_ros.graph import (
    CONTROLLERS,
    GRAPHS,
    HAND_HZ,
    NODES,
    RESTART,
    SHUTDOWN,
    FrankaArguments,
    SimArguments,
    TeleopArguments,
    franka_graph,
    sim_graph,
    teleop_graph,
)
from e0_ros.interfaces import SERVICES

ROOT = Path(__file__).resolve().parents[1]


def settings(graph):
    return {process.name: process.settings for process in graph.processes}


def test_lockstep_reaches_every_node_that_keeps_time():
    graph = sim_graph(SimArguments(mode="lockstep"))
    assert graph.use_sim_time
    assert all(graph.parameters(p)["use_sim_time"] for p in graph.processes)
    by_node = settings(graph)
    assert by_node["bridge"]["mode"] == "lockstep"
    assert all(by_node[n]["lockstep"] for n in ("observation_sync", "experts", "chunk_executor"))
    assert not sim_graph(SimArguments()).use_sim_time


@pytest.mark.parametrize(("simulator", "arm"), [("maniskill", "panda"), ("fr3_plant", "fr3")])
def test_every_node_gets_the_simulators_arm(simulator, arm):
    by_node = settings(sim_graph(SimArguments(simulator=simulator)))
    assert {s["embodiment"] for s in by_node.values() if "embodiment" in s} == {arm}
    assert by_node["chunk_executor"]["embodiment"] == arm


def test_one_source_at_a_time():
    nodes = {"scripted": "experts", "policy": "policy", "replay": "policy", "teleop": "gello_teleop", "external": None}
    for source, node in nodes.items():
        names = [p.name for p in sim_graph(SimArguments(source=source, checkpoint="c", recording="r")).processes]
        assert [n for n in names if n in ("experts", "policy", "gello_teleop")] == [node] * bool(node)
    with pytest.raises(ConfigError, match="checkpoint:=PATH"):
        SimArguments(source="policy")


def test_no_lists_are_shared_and_names_are_unique():
    for graph in (
        sim_graph(SimArguments()),
        franka_graph(FrankaArguments(robot_ip="::1", checkpoint="c", cameras=False)),
    ):
        names = [p.name for p in (*graph.processes, *graph.foreign)]
        assert len(names) == len(set(names))


def test_interpreters_fall_back_from_the_special_one_to_the_common_one():
    arguments = SimArguments(python="/a/python", sim_python="/b/python")
    graph = sim_graph(arguments)
    chosen = {p.name: graph.interpreter(p) for p in graph.processes}
    assert chosen["bridge"] == chosen["experts"] == "/b/python"
    assert chosen["chunk_executor"] == "/a/python"
    assert sim_graph(SimArguments()).interpreter(graph.processes[0]) == ""


def test_bench_starts_arm_controller_and_one_camera_per_view():
    arguments = FrankaArguments(robot_ip="172.16.0.2", checkpoint="c", serials=("11", "22"))
    graph = franka_graph(arguments)
    assert [f.name for f in graph.foreign] == ["franka", "controller", "camera_base", "camera_wrist"]
    assert "serial_no:=_22" in graph.foreign[3].arguments
    nodes = ["observation_sync", "policy", "chunk_executor", "gripper", "arm_session", "episode_recorder"]
    assert [p.name for p in graph.processes] == nodes


def test_package_xml_names_every_package_that_a_graph_starts(tmp_path):
    named = {e.text for e in ElementTree.parse(ROOT / "package.xml").getroot().iter("exec_depend")}
    place = {"parent": "base", "position_m": [0.0, 0.0, 1.0], "quaternion_xyzw": [0.0, 0.0, 0.0, 1.0]}
    bench = tmp_path / "bench.yaml"
    bench.write_text(yaml.safe_dump({"cameras": {"base": place}}))
    started = franka_graph(FrankaArguments("::1", checkpoint="c", serials=("1", "2"), calibration=str(bench))).foreign
    assert {f.package for f in started} == {"franka_bringup", "controller_manager", "realsense2_camera", "tf2_ros"}
    assert {"joint_trajectory_controller", *(f.package for f in started)} <= named


def test_a_leader_on_the_bench_and_in_a_simulation():
    bench = teleop_graph(TeleopArguments(robot_ip="1", cameras=False, gello="g.yaml", gello_port="/dev/x"))
    by_node = settings(bench)
    nodes = ["observation_sync", "gello_teleop", "chunk_executor", "gripper", "arm_session", "episode_recorder"]
    assert list(by_node) == nodes
    assert by_node["gello_teleop"] == {"embodiment": "fr3", "calibration": "g.yaml", "port": "/dev/x"}
    assert {p.name: p.on_death for p in bench.processes}["gello_teleop"] == RESTART
    assert by_node["chunk_executor"]["exhausted_ms"] == 20.0
    assert by_node["chunk_executor"]["output"] == "joint_trajectory"
    simulated = settings(sim_graph(SimArguments(simulator="fr3_plant", source="teleop", gello_port="/dev/x")))
    assert simulated["gello_teleop"]["port"] == "/dev/x"
    assert simulated["chunk_executor"]["exhausted_ms"] == 20.0
    assert settings(sim_graph(SimArguments(mode="lockstep")))["chunk_executor"]["expected_source"] == "scripted"


def test_the_gripper_is_left_out_where_no_hand_serves_it():
    for without in ({"gripper": False, "robot_ip": "1"}, {"use_fake_hardware": True}):
        common = {"cameras": False, "gello": "g.yaml", **without}
        graphs = franka_graph(FrankaArguments(checkpoint="c", **common)), teleop_graph(TeleopArguments(**common))
        assert "gripper" not in [process.name for graph in graphs for process in graph.processes]


def test_the_arm_is_watched_where_a_driver_tells_of_it_and_then_the_executor_insists():
    for output, controller in CONTROLLERS.items():
        arguments = FrankaArguments(checkpoint="c", cameras=False, robot_ip="1", controller=output, speed=0.25)
        by_node = settings(franka_graph(arguments))
        assert by_node["arm_session"] == {"embodiment": "fr3", "controller": controller}
        assert by_node["chunk_executor"]["arm_fault_required"] and by_node["chunk_executor"]["speed"] == 0.25
    for without in ({"arm_session": False, "robot_ip": "1"}, {"use_fake_hardware": True}):
        by_node = settings(franka_graph(FrankaArguments(checkpoint="c", cameras=False, **without)))
        assert "arm_session" not in by_node and not by_node["chunk_executor"]["arm_fault_required"]
    simulated = settings(sim_graph(SimArguments(simulator="fr3_plant", fci="humble", step_through=True)))
    assert simulated["arm_session"]["distribution"] == simulated["bridge"]["fci"] == "humble"
    assert simulated["chunk_executor"]["step_through"] and simulated["chunk_executor"]["arm_fault_required"]
    assert simulated["gripper"] == {"embodiment": "fr3"}, "executor, gripper node and plant close the loop"
    assert simulated["observation_sync"]["gripper_rate_hz"] == HAND_HZ
    plain = settings(sim_graph(SimArguments(simulator="fr3_plant")))
    assert not {"gripper", "arm_session"} & set(plain)
    for paced in ({"speed": 0.5}, {"step_through": True}, {"fci": "jazzy"}):
        with pytest.raises(ConfigError, match="need mode:=realtime"):
            SimArguments(mode="lockstep", **paced)


def test_a_policy_in_the_shadow_plans_where_nothing_follows():
    given = {"checkpoint": "c", "shadow": True}
    leader = {"gello": "g.yaml", "cameras": False, "robot_ip": "1"}
    fake = {"simulator": "fr3_plant"}
    graphs = [
        franka_graph(FrankaArguments(cameras=False, robot_ip="1", **given)),
        teleop_graph(TeleopArguments(**leader, **given)),
        teleop_graph(TeleopArguments(**fake, **given)),
        sim_graph(SimArguments(**fake, **given)),
    ]
    assert all(settings(graph)["policy"]["shadow"] for graph in graphs)
    assert "gello_teleop" in settings(graphs[1]) and "experts" in settings(graphs[3])
    assert not settings(franka_graph(FrankaArguments(cameras=False, robot_ip="1", checkpoint="c")))["policy"]["shadow"]
    with pytest.raises(ConfigError, match="beside a leader a policy only watches"):
        TeleopArguments(**leader, checkpoint="c")
    with pytest.raises(ConfigError, match="which it is itself"):
        SimArguments(source="policy", **given)
    with pytest.raises(ConfigError, match="shadow:=true needs checkpoint:=PATH"):
        SimArguments(shadow=True)


def test_a_leader_beside_a_policy_takes_over_on_request_only():
    bench = franka_graph(FrankaArguments(robot_ip="1", checkpoint="c", cameras=False, gello="g.yaml"))
    simulated = sim_graph(SimArguments(source="policy", checkpoint="c", gello_port="/dev/x"))
    for graph in (bench, simulated):
        assert settings(graph)["gello_teleop"]["engage"] == "request"
        assert {p.name: p.on_death for p in graph.processes}["gello_teleop"] == RESTART
    assert "gello_teleop" not in settings(franka_graph(FrankaArguments(robot_ip="1", checkpoint="c", cameras=False)))


def test_the_fake_bench_of_a_leader():
    graph = teleop_graph(TeleopArguments(simulator="fr3_plant", gello_port="/dev/x", bag_dir="b", instruction="wave"))
    by_node = settings(graph)
    assert list(by_node) == ["bridge", "observation_sync", "gello_teleop", "chunk_executor", "episode_recorder"]
    assert graph.name == "teleop" and not graph.foreign
    assert by_node["gello_teleop"] == {"embodiment": "fr3", "calibration": "", "port": "/dev/x"}
    assert by_node["observation_sync"]["instruction"] == "wave" and by_node["episode_recorder"]["bag_dir"] == "b"


def test_bench_asks_for_what_it_cannot_guess():
    with pytest.raises(ConfigError, match="robot_ip:=ADDRESS"):
        FrankaArguments(checkpoint="c")
    with pytest.raises(ConfigError, match="serials:=A,B"):
        FrankaArguments(checkpoint="c", robot_ip="1")
    with pytest.raises(ConfigError, match="checkpoint:=PATH"):
        FrankaArguments(robot_ip="1", cameras=False)
    with pytest.raises(ConfigError, match="gello:=PATH"):
        TeleopArguments(robot_ip="1", cameras=False)
    with pytest.raises(ConfigError, match="a hand does not wait"):
        SimArguments(source="teleop", mode="lockstep")


def test_death_of_the_executor_always_ends_the_graph_and_of_a_real_policy_does_not():
    graph = franka_graph(FrankaArguments(robot_ip="1", checkpoint="c", cameras=False))
    deaths = {p.name: p.on_death for p in graph.processes}
    assert deaths["chunk_executor"] == SHUTDOWN
    assert deaths["policy"] != SHUTDOWN
    assert {p.on_death for p in sim_graph(SimArguments()).processes} == {SHUTDOWN}


def test_a_policy_on_another_computer_is_not_started_here():
    arguments = FrankaArguments(robot_ip="1", cameras=False, policy=False)
    assert "policy" not in {p.name for p in franka_graph(arguments).processes}


def test_every_service_owner_is_a_node():
    assert {s.owner for s in SERVICES} <= {node.name for node in NODES}


def test_unknown_argument_names_the_closest():
    with pytest.raises(ConfigError, match="did you mean 'simulator'"):
        from_mapping(SimArguments, {"simulater": "maniskill"}, "graph sim")
    with pytest.raises(ConfigError, match="did you mean 'fr3_plant'"):
        from_mapping(SimArguments, {"simulator": "fr3_plan"}, "graph sim")


def test_arguments_are_documented():
    for (cls, _), key in itertools.product(GRAPHS.values(), ("meaning",)):
        assert all(re.search(r"\w", f.metadata[key]) for f in cls.__dataclass_fields__.values())


def test_a_stepped_simulator_is_stepped_without_being_told_and_nothing_else_can_be() -> None:
    graph = sim_graph(SimArguments(simulator="libero", task="libero_spatial/0", sim_python="/c/python"))
    by_name = {process.name: process for process in graph.processes}
    assert graph.use_sim_time and graph.interpreter(by_name["bridge"]) == "/c/python"
    executor, bridge = by_name["chunk_executor"].settings, by_name["bridge"].settings
    assert (executor["output"], executor["step_columns"], executor["lockstep"]) == ("step", 7, True)
    assert (bridge["controller"], bridge["mode"]) == ("step", "lockstep")
    for wrong in (
        {"simulator": "libero", "mode": "realtime"},
        {"simulator": "libero", "controller": "joint_trajectory"},
        {"simulator": "maniskill", "mode": "lockstep", "controller": "step"},
    ):
        with pytest.raises(ConfigError, match=r"steps \(mode:=lockstep controller:=step\) are for robotwin, libero"):
            SimArguments(**wrong)
    assert (SimArguments().mode, SimArguments().controller) == ("realtime", "joint_trajectory")
    with pytest.raises(ConfigError, match="'step'"):
        FrankaArguments(robot_ip="10.0.0.1", checkpoint="c", controller="step")
