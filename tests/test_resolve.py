import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from e0_ros import graph as graphs
from e0_ros import resolve as module
from e0_ros.bootstrap.plan import extras_of, requirements
from e0_ros.graph import Graph, Process, SimArguments
from e0_ros.resolve import GraphError, argument_text, configured, parse, resolve, write_configuration

ROOT = Path(__file__).resolve().parents[1]
STUB = Process("policy", "stubs.stub_node", ("stubs.stub_node:StubConfig",), settings={"says": "hello"})


@pytest.fixture
def stub_graph(monkeypatch):
    """The graph `sim` with one stub node in it."""
    make = lambda arguments: Graph("sim", arguments, (STUB,))  # noqa: E731
    monkeypatch.setitem(graphs.GRAPHS, "sim", (SimArguments, make))


def test_words_get_the_arguments_types():
    words = ["seed:=3", "record:=false", "views:=base,wrist", "task:=PickCube-v1", "settings:="]
    expected = {"seed": 3, "record": False, "views": ["base", "wrist"], "task": "PickCube-v1", "settings": ""}
    assert parse("sim", words) == expected


@pytest.mark.parametrize(
    ("graph", "word", "message"),
    [
        ("sim", "seed=3", "name:=value"),
        ("sim", "seed:=three", "int is needed"),
        ("sim", "record:=maybe", "true or false"),
        ("sym", "seed:=3", "did you mean 'sim'"),
    ],
)
def test_wrong_words_say_what_is_allowed(graph, word, message):
    with pytest.raises(GraphError, match=message):
        parse(graph, [word])


def test_defaults_survive_being_written_and_parsed():
    for name, (cls, _) in graphs.GRAPHS.items():
        for f in cls.__dataclass_fields__.values():
            value = parse(name, [f"{f.name}:={argument_text(f.default)}"])[f.name]
            assert (tuple(value) if isinstance(value, list) else value) == f.default


def test_a_checkpoint_whose_rows_nothing_takes_is_refused_before_anything_starts(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed (extra [policy])")
    from tests.e0_policy.tiny import tiny_checkpoint, tiny_step_checkpoint

    joints, steps = str(tiny_checkpoint(tmp_path / "joints")), str(tiny_step_checkpoint(tmp_path / "steps"))
    other = str(tiny_step_checkpoint(tmp_path / "other", ("forward", "gripper")))
    policy = {"source": "policy", "mode": "lockstep"}
    resolve("sim", {"simulator": "libero", "checkpoint": steps, **policy})
    resolve("sim", {"simulator": "fr3_plant", "embodiment": "panda", "checkpoint": joints, **policy})
    for graph, values, text in (
        (
            "sim",
            {"simulator": "libero", "checkpoint": joints, **policy},
            r"joint_position .*simulator libero takes ee_del",
        ),
        (
            "sim",
            {"simulator": "libero", "checkpoint": other, **policy},
            r"\(forward, gripper\); simulator libero .*\(dx",
        ),
        (
            "sim",
            {"simulator": "maniskill", "checkpoint": steps, **policy},
            r"ee_delta_step .*maniskill takes joint_pos",
        ),
        ("franka", {"robot_ip": "1", "checkpoint": steps, "cameras": False}, "graph franka takes joint_position or"),
    ):
        with pytest.raises(GraphError, match=text):
            resolve(graph, values)


def test_a_simulators_pictures_are_those_that_the_checkpoint_was_trained_with_unless_others_are_asked_for(monkeypatch):
    def made(**values):
        graph = resolve("sim", {"simulator": "fr3_plant", "mode": "lockstep", "embodiment": "panda", **values})
        bridge = next(p for p in graph.processes if p.name == "bridge").settings
        sync = next(p for p in graph.processes if p.name == "observation_sync").settings
        assert (bridge["width_px"], bridge["views"]) == (sync["image_width"], sync["views"])
        return bridge["width_px"], tuple(bridge["views"])

    shipped = {"source": "policy", "checkpoint": str(ROOT / "config/checkpoint/pick_push")}
    assert made() == (224, ("base", "wrist"))
    assert made(**shipped) == (128, ("base", "side", "wrist"))
    assert made(**shipped, size=96, views=("base", "wrist")) == (96, ("base", "wrist"))


def test_settings_file_is_checked_and_overridden(stub_graph, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("policy: {rate_hz: 2, exit_status: 1}\n")
    graph = resolve("sim", {"settings": str(file)}, {"policy": {"rate_hz": 3}})
    assert graph.processes[0].settings == {"says": "hello", "rate_hz": 3.0, "exit_status": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("policy: {rate_hs: 2}", "did you mean 'rate_hz'"),
        ("policy: {rate_hz: 20}", "allowed is 0.5 to 10.0"),
        ("polizy: {rate_hz: 2}", "did you mean 'policy'"),
        ("policy: {says: no}", "follows from the graph's arguments"),
        ("policy: 3", "a mapping of settings is needed"),
        ("[1]", "a mapping of settings is needed"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(stub_graph, tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(GraphError, match=message):
        resolve("sim", {"settings": str(file)})


def test_an_arm_that_is_not_known_names_the_closest():
    with pytest.raises(GraphError, match="did you mean 'fr3'"):
        resolve("franka", {"robot_ip": "::1", "checkpoint": "c", "cameras": False, "embodiment": "fr"})


def test_missing_settings_file_is_an_error(stub_graph):
    with pytest.raises(GraphError, match="cannot be read"):
        resolve("sim", {"settings": "/nowhere/mine.yaml"})


def test_a_node_that_is_not_installed_is_named():
    absent = replace(STUB, name="gello_teleop", configs=("e0_ros.nodes.nowhere:Config",))
    with pytest.raises(GraphError, match="gello_teleop is not part of this installation"):
        configured(absent, {})


def test_several_settings_classes_share_one_node():
    both = replace(STUB, configs=("stubs.stub_node:StubConfig", "e0_ros.graph:SimArguments"))
    ready = configured(both, {"rate_hz": 2, "seed": 7})
    assert ready.settings == {"says": "hello", "rate_hz": 2.0, "seed": 7}
    assert module.config_classes(both)[1] is SimArguments


def test_recorder_is_told_where_the_resolved_configuration_lies(tmp_path):
    recorder = replace(STUB, name="episode_recorder")
    graph = write_configuration(Graph("sim", SimArguments(seed=5), (STUB, recorder)), tmp_path)
    path = Path(graph.processes[1].settings["configuration"])
    assert "configuration" not in graph.processes[0].settings
    written = yaml.safe_load(path.read_text())
    assert written["arguments"]["seed"] == 5
    assert written["settings"]["policy"] == {"says": "hello"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sim", []),
        ("sim", ["mode:=lockstep", "simulator:=fr3_plant", "source:=external"]),
        ("sim", ["source:=policy", "checkpoint:=c"]),
        ("sim", ["source:=replay", "recording:=r", "controller:=impedance"]),
        ("franka", ["robot_ip:=172.16.0.2", "checkpoint:=c", "cameras:=false", "controller:=impedance"]),
    ],
)
def test_every_setting_that_the_graphs_make_is_one_of_its_node(name, words):
    """Against the nodes themselves, with the shipped settings files."""
    for node in ("sim.bridge", "sim.experts", "e0_ros.nodes.policy", "e0_ros.nodes.chunk_executor"):
        pytest.importorskip(node, reason=f"{node} is not here")
    for node in ("e0_ros.nodes.observation_sync", "e0_ros.nodes.episode_recorder"):
        pytest.importorskip(node, reason=f"{node} is not here")
    graph = resolve(name, parse(name, words))
    assert {p.name for p in graph.processes} >= {"observation_sync", "chunk_executor", "episode_recorder"}


WITHOUT_EXTRAS = """
import importlib
import sys
from importlib.metadata import packages_distributions

blocked = set(sys.argv[1].split(","))
class AllBut:
    def find_spec(self, name, path=None, target=None):
        specs = (finder.find_spec(name, path, target) for finder in finders if name not in hidden)
        return next(filter(None, specs), None)
plain = lambda name: name.lower().replace("_", "-")
hidden = {module for module, owners in packages_distributions().items() if blocked & set(map(plain, owners))}
assert hidden >= {"mcap", "pyarrow", "rosbags"}, hidden
finders, sys.meta_path = sys.meta_path, [AllBut()]
from e0_ros.graph import NODES
from e0_ros.resolve import GraphError, parse, resolve
for line in sys.argv[2:]:
    name, *words = line.split()
    print(len(resolve(name, parse(name, [*words, "python:=/other/python"])).processes))
try:
    resolve("sim")
except GraphError as error:
    print(error, file=sys.stderr)
for process in NODES:
    try:
        importlib.import_module(process.module)
        lacks = set()
    except ModuleNotFoundError as error:
        lacks = {error.name.split(".")[0]}
    assert lacks <= set(process.needs) and bool(lacks) == bool(process.needs), (process.name, lacks)
"""


def test_a_graph_is_checked_with_nothing_but_what_package_xml_names():
    """`ros2 launch` runs under the system's Python, which lacks what is only in that of the nodes (`python:=`)."""
    named = {"numpy", "pyyaml", "opencv-python"}
    wanted = requirements(ROOT, [e for e in extras_of(ROOT) if e not in ("", "ros", "dev")])
    plain = {re.split(r"[^\w-]", line)[0].lower().replace("_", "-") for line in wanted} - named
    arm, leader = "robot_ip:=::1 serials:=1,2", "gello:=g.yaml"
    lines = [
        "sim",
        "sim source:=replay recording:=r.npz",
        f"teleop {arm} {leader}",
        f"franka {arm} checkpoint:=c",
        f"franka {arm} checkpoint:=c {leader} shadow:=true",
        "teleop simulator:=fr3_plant gello_port:=/tmp/g",
    ]
    command = [sys.executable, "-c", WITHOUT_EXTRAS, ",".join(sorted(plain)), *lines]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [int(line) for line in done.stdout.split()] == [5, 5, 6, 6, 7, 5]
    assert "episode_recorder needs mcap, rosbags" in done.stderr and "make policy-venv" in done.stderr
