"""The files in launch/ under the real launch and launch_ros, against what `e0 launch` starts."""

import importlib.util
import itertools
import os
import sys
from pathlib import Path

import pytest
from stubs.stub_node import StubConfig  # noqa: F401  (the stub graph's settings)

from e0_policy.resources import config_dir
from e0_ros import graph as graphs
from e0_ros import readiness
from e0_ros.drivers import CONTINUE, RESTART, Foreign
from e0_ros.environment import child_environment
from e0_ros.graph import Graph, Process, SimArguments
from e0_ros.launcher import Launcher
from e0_ros.resolve import GraphError

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
RANGE, FASTDDS = "ROS_AUTOMATIC_DISCOVERY_RANGE", "FASTDDS_DEFAULT_PROFILES_FILE"
FASTRTPS = "FASTRTPS_DEFAULT_PROFILES_FILE"
STUBS = ("stubs.stub_node:StubConfig",)


def stub_graph(arguments):
    processes = (
        Process("bridge", "stubs.stub_node", STUBS, "sim_python", settings={"says": arguments.task}),
        Process("policy", "stubs.stub_node", STUBS, "policy_python", CONTINUE, {"rate_hz": 2}),
        Process("chunk_executor", "stubs.stub_node", STUBS, on_death=RESTART),
    )
    foreign = (Foreign("controller", "run", "controller_manager", "spawner", ("jtc",), CONTINUE),)
    lockstep = arguments.mode == "lockstep"
    return Graph("sim", arguments, processes, foreign if arguments.simulator == "maniskill" else (), lockstep)


def load(name):
    spec = importlib.util.spec_from_file_location(f"{name}_launch", LAUNCH / f"{name}.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.fixture
def launch_ros(monkeypatch):
    monkeypatch.setitem(graphs.GRAPHS, "sim", (SimArguments, stub_graph))
    pytest.importorskip("launch.actions", reason="launch is not installed: it comes with a ROS 2 install only")
    return pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed: it comes with ROS 2 only")


def entities(description, argv=(), **arguments):
    """Processes that a launch description yields, and the context that they were made in."""
    from launch.actions import SetEnvironmentVariable

    made, context = everything(description, argv, **arguments)
    return [entity for entity in made if not isinstance(entity, SetEnvironmentVariable)], context


def everything(description, argv=(), **arguments):
    """Entities that a launch description yields, and the context that they were made in."""
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    context = LaunchContext(argv=argv)
    context.launch_configurations.update(arguments)
    made = []
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
        elif isinstance(entity, OpaqueFunction):
            made += entity.execute(context)
    return made, context


@pytest.mark.parametrize("name", ["sim", "franka", "teleop"])
def test_arguments_are_those_of_the_graph(launch_ros, name):
    from launch.actions import DeclareLaunchArgument

    declared = [e.name for e in load(name).entities if isinstance(e, DeclareLaunchArgument)]
    assert declared == list(graphs.GRAPHS[name][0].__dataclass_fields__)


def test_launch_ros_and_e0_launch_start_the_same_processes(launch_ros):
    """Same names, interpreters and parameters; only where a module or console script is named do they differ."""
    from launch.utilities import perform_substitutions

    values = {"simulator": "fr3_plant", "mode": "lockstep", "task": "T", "policy_python": "/p/python"}
    nodes, context = entities(load("sim"), **values)
    launcher = Launcher(stub_graph(SimArguments(**values)))
    assert [n.node_executable for n in nodes] == [p.name for p in launcher.graph.processes]
    assert {n.node_package for n in nodes} == {"e0_ros"}
    names = [n.process_description._Executable__name for n in nodes]
    assert [perform_substitutions(context, name) for name in names] == [p.name for p in launcher.graph.processes]
    for node, process in zip(nodes, launcher.graph.processes, strict=True):
        prefix = perform_substitutions(context, node.process_description.prefix or [])
        assert prefix == launcher.graph.interpreter(process)
        assert parameters_of(node, context) == launcher.graph.parameters(process)
    launcher.request_stop()


def parameters_of(node, context):
    from launch_ros.utilities import evaluate_parameters

    (values,) = evaluate_parameters(context, node._Node__parameters)
    return dict(values)


def test_deaths_end_or_spare_the_graph(launch_ros):
    nodes, _ = entities(load("sim"), simulator="maniskill")
    by_name = {node.node_executable: node for node in nodes}
    ends = {name: bool(node._ExecuteLocal__on_exit) for name, node in by_name.items()}
    assert ends == {"spawner": False, "bridge": True, "policy": False, "chunk_executor": False}
    assert by_name["chunk_executor"]._ExecuteLocal__respawn


def test_other_packages_are_included_with_their_arguments(launch_ros, monkeypatch, tmp_path):
    from launch import LaunchContext
    from launch.actions import IncludeLaunchDescription

    package = installed(monkeypatch, tmp_path)
    foreign = Foreign("franka", "launch", *package, ("robot_ip:=::1", "load_gripper:=true"))
    make = lambda arguments: Graph("sim", arguments, (), (foreign,))  # noqa: E731
    monkeypatch.setitem(graphs.GRAPHS, "sim", (SimArguments, make))
    (group,), _ = entities(load("sim"))
    (included,) = [e for e in group.get_sub_entities() if isinstance(e, IncludeLaunchDescription)]
    assert list(included.launch_arguments) == [("robot_ip", "::1"), ("load_gripper", "true")]
    (location,) = included.launch_description_source._LaunchDescriptionSource__location
    assert location.text == str(tmp_path / "share/franka_bringup/launch/franka.launch.py")
    context = LaunchContext()
    context.launch_configurations.update(robot_ip="::2", settings="mine.yaml")
    for action in itertools.takewhile(lambda e: e is not included, group.get_sub_entities()):
        action.execute(context)
    assert not context.launch_configurations, "what our arguments are called is no concern of theirs"


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({}, {RANGE: "LOCALHOST", FASTDDS: str(config_dir() / "fastdds.xml")}),
        ({RANGE: "SUBNET", FASTDDS: "/mine.xml"}, {RANGE: "SUBNET", FASTDDS: "/mine.xml"}),
        ({"ROS_DISTRO": "humble"}, {FASTRTPS: str(config_dir() / "fastdds.xml")}),
        ({"ROS_DISTRO": "humble", FASTRTPS: "/mine.xml"}, {FASTRTPS: "/mine.xml"}),
    ],
    ids=["nothing chosen", "chosen", "Humble", "Humble, chosen"],
)
def test_the_environment_is_that_of_e0_launch_for_drivers_too_and_what_was_chosen_stays(
    launch_ros, monkeypatch, tmp_path, chosen, told
):
    """As it is where a process begins: that of `e0 launch`, but for where packages lie."""
    from launch.actions import GroupAction, IncludeLaunchDescription, SetEnvironmentVariable

    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/ros/lib")
    for name in (RANGE, FASTDDS, FASTRTPS, "ROS_DISTRO", "RMW_IMPLEMENTATION", "PYTHONUNBUFFERED"):
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards
        monkeypatch.delenv(name)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    foreign = (
        Foreign("controller", "run", "controller_manager", "spawner", ("jtc",), CONTINUE),
        Foreign("franka", "launch", *installed(monkeypatch, tmp_path)),
    )
    make = lambda arguments: Graph("sim", arguments, stub_graph(arguments).processes, foreign)  # noqa: E731
    monkeypatch.setitem(graphs.GRAPHS, "sim", (SimArguments, make))
    expected = child_environment(os.environ, profiles=config_dir() / "fastdds.xml")
    made, context = everything(load("sim"))
    count = len([entity for entity in made if isinstance(entity, SetEnvironmentVariable)])
    assert all(isinstance(entity, SetEnvironmentVariable) for entity in made[:count]), "before the first process"
    for entity in made[:count]:
        entity.execute(context)
    assert told.items() <= context.environment.items()
    assert {k: v for k, v in expected.items() if not k.endswith("_PATH")}.items() <= context.environment.items()
    assert context.environment["LD_LIBRARY_PATH"] == "/opt/ros/lib"
    nodes = [entity for entity in made if isinstance(entity, launch_ros.Node)]
    assert len(nodes) == 4 and not any(node.process_description.additional_env for node in nodes)
    (group,) = (entity for entity in made if isinstance(entity, GroupAction))
    for action in itertools.takewhile(lambda e: not isinstance(e, IncludeLaunchDescription), group.get_sub_entities()):
        action.execute(context)
    assert told.items() <= context.environment.items(), "reaches what other packages launch"


def installed(monkeypatch, folder):
    """A launch file of a package that is installed below a folder."""
    marker = folder / "share/ament_index/resource_index/packages/franka_bringup"
    marker.parent.mkdir(parents=True)
    marker.touch()
    (folder / "share/franka_bringup").mkdir()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(folder))
    return "franka_bringup", "franka.launch.py"


def test_a_wrong_argument_stops_the_launch(launch_ros):
    with pytest.raises(GraphError, match="did you mean 'fr3_plant'"):
        entities(load("sim"), simulator="fr3_plan")


def test_an_argument_that_is_not_declared_stops_the_launch_unless_it_may_be_that_of_a_file_that_includes_ours(
    launch_ros, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "mine", "lab.launch.py", "simulater:=fr3_plant"])
    assert entities(load("sim"), ("simulater:=fr3_plant",))[0]
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "e0_ros", "sim.launch.py", "simulater:=fr3_plant"])
    with pytest.raises(GraphError, match="did you mean 'simulator'"):
        entities(load("sim"), ("simulater:=fr3_plant",))


def test_ros2_launch_too_starts_nothing_beside_another_graph(launch_ros, monkeypatch):
    monkeypatch.setattr(readiness, "wait_until_alone", lambda *_: ["chunk_executor"])
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "mine", "lab.launch.py"])
    assert entities(load("sim"), simulator="fr3_plant")[0], "a file that includes ours may have started drivers"
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "e0_ros", "sim.launch.py"])
    with pytest.raises(GraphError, match=r"chunk_executor.*another ROS_DOMAIN_ID"):
        entities(load("sim"), simulator="fr3_plant")


def test_launch_files_hold_nothing_but_the_graphs_name():
    assert sorted(p.name for p in LAUNCH.glob("*.py")) == [f"{n}.launch.py" for n in sorted(graphs.GRAPHS)]
    for path in LAUNCH.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 25
        assert f'description("{path.name.split(".")[0]}")' in path.read_text()
