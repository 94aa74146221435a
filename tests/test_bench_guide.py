"""The bench guide and the Foxglove layout speak of verbs, arguments, services and messages that exist."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from e0_policy.embodiment import load_embodiment
from e0_policy.kinematics import arm_points_m, tcp_position_m
from e0_ros.cli import VERBS, main
from e0_ros.config import from_mapping
from e0_ros.core.fci import ERROR_MEANS, MODE_MEANS
from e0_ros.core.take_session import KEYS
from e0_ros.core.workspace import WorkspaceConfig
from e0_ros.graph import FrankaArguments, SimArguments, TeleopArguments
from e0_ros.interfaces import SERVICES, TOPICS, camera_info_topic, camera_topic
from e0_ros.resolve import config_classes, parse

ROOT = Path(__file__).resolve().parents[1]
CHECKLIST = (ROOT / "CHECKLIST.md").read_text()
GUIDE = (ROOT / "BENCH_GUIDE.md").read_text() + CHECKLIST
CODE = "\n".join(p.read_text() for p in (ROOT / "e0_ros").rglob("*.py"))
LAYOUT = json.loads((ROOT / "config" / "foxglove.json").read_text())


def test_every_verb_and_option_exists() -> None:
    said = re.findall(r"`(?:sudo )?e0 ([a-z]+(?: [a-z]+)?)([^`]*)", GUIDE)
    assert len(said) > 20
    for words, rest in said:
        verb = words if words in VERBS else words.split()[0]
        assert verb in VERBS, words
        module = ROOT / (VERBS[verb][0].split(":")[0].replace(".", "/") + ".py")
        source = module.read_text() + CODE
        for option in re.findall(r"--([a-z-]+)", rest):
            assert f"--{option}" in source or option.replace("-", "_") + ":" in source, (verb, option)


def commands(text: str) -> Iterator[str]:
    """Every `e0 ...` of a document: lines of its blocks without their comments, and what stands in backticks."""
    for block in re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.M | re.S):
        lines = (re.split(r"\s#", line)[0].strip(" &") for line in block.replace("\\\n", " ").splitlines())
        yield from (line for line in lines if re.match(r"(sudo )?e0 ", line))
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    yield from (" ".join(words.split()) for words in re.findall(r"`((?:sudo )?e0 [^`]*)`", prose))


PAGES = ("BENCH_GUIDE.md", "CHECKLIST.md", "README.md")
COMMANDS = sorted({command for page in PAGES for command in commands((ROOT / page).read_text())})


class ParsedError(Exception):
    """A verb has read its arguments; what it would do now is not done."""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_documents_is_taken_by_its_own_parser(command: str, monkeypatch) -> None:
    """`<what>` stands for a word, `...` for a value or, where there is none to give, for further words."""
    given = re.sub(r"<[^>]*>", "x", command.replace("<graph>", "sim"))
    words = shlex.split(given.removeprefix("sudo "))[1:]
    if not words[1:] or " ".join(words) in VERBS:
        assert words[0] == "--help" or any(verb.split()[0] == words[0] for verb in VERBS), "named, not given"
        return
    read = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *given: Any) -> None:
        options = read(parser, *given)
        if parser.prog == "e0 launch":
            parse(options.graph, options.arguments)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    for tried in (words, [word for word in words if word != "..."]):
        try:
            status = main(tried)
        except ParsedError:
            return
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        if status == 0:
            return
    pytest.fail(f"exit status {status}: {command}")


def test_every_launch_argument_exists() -> None:
    known = {f.name for cls in (FrankaArguments, TeleopArguments, SimArguments) for f in fields(cls)}
    assert set(re.findall(r"\b([a-z_]+):=", GUIDE)) <= known


def test_every_launch_gives_the_nodes_a_python_that_has_their_packages() -> None:
    """colcon's console scripts run under the system's, which lacks torch, mcap and others."""
    given = re.findall(r"ros2 launch e0_ros \w+\.launch\.py\s+(\S+)", GUIDE + (ROOT / "README.md").read_text())
    assert len(given) > 5 and set(given) <= {"python:=$(which", "..."}, given
    assert all("--prefix" in rest for rest in re.findall(r"ros2 run ([^`]*)", GUIDE))


def test_the_first_motion_has_a_table_and_a_box_around_the_arm_at_home() -> None:
    from e0_ros.graph import EXECUTOR

    (block,) = re.findall(r"^```\n(chunk_executor:\n.*?)^```", GUIDE, re.M | re.S)
    told = yaml.safe_load(block)["chunk_executor"]
    chosen = [
        from_mapping(cls, {f.name: told.pop(f.name) for f in fields(cls) if f.name in told}, "the guide")
        for cls in config_classes(EXECUTOR)
    ]
    assert not told, "settings that no part of the executor has"
    (config,) = [c for c in chosen if isinstance(c, WorkspaceConfig)]
    tool, lowest = tcp_position_m(load_embodiment("fr3").home), arm_points_m(load_embodiment("fr3").home)[:, 2].min()
    assert config.table_height_m > WorkspaceConfig().table_height_m and lowest > config.table_height_m
    assert (config.workspace_lower_m < tool).all() and (tool < config.workspace_upper_m).all()
    for key in ("table_height_m", "workspace_lower_m", "workspace_upper_m"):
        assert key in CHECKLIST


def test_every_topic_and_service_exists() -> None:
    known = {s.name for s in SERVICES} | {t.name for t in TOPICS}
    assert {name.rstrip("/") for name in re.findall(r"/e0/[a-z_/]+", GUIDE)} <= known


def test_settings_keys_and_errors_are_those_of_the_code() -> None:
    from e0_ros.graph import ARM_SESSION

    known = {f.name for cls in config_classes(ARM_SESSION) for f in fields(cls)}
    written = {key for key, _, _ in re.findall(r"^  ((load|contact|collision)_\w+): (\S+)", GUIDE, re.M)}
    assert len(written) == 4 and written <= known
    meaning = {
        "x": "step",
        "v": "recover",
        "+": "faster",
        "-": "slower",
        "s": "success",
        "f": "failure",
        "r": "re-record",
    }
    assert all(KEYS[key] == said for key, said in meaning.items())
    for error in ERROR_MEANS:
        tail = error.removeprefix("joint_motion_generator")
        assert error in GUIDE or tail in GUIDE or error in ("joint_velocity_violation", "cartesian_velocity_violation")
    told = [text for mode, text in MODE_MEANS.items() if mode.name not in ("GUIDING", "AUTOMATIC_ERROR_RECOVERY")]
    assert all(text.split(":")[0] in GUIDE for text in told)


@pytest.mark.parametrize(
    "message",
    [
        "arm_fault_required is set and arm_session has not spoken yet",
        "no robot state for",
        "of the commands reach the arm in time",
        "rad from its reference",
        "in the future",
        "not aligned",
        "the leader is silent for",
        "stale observation",
        "plan exhausted",
        "jumps by",
        "the executor was",
        "too late to be sent",
        "step-through: /e0/step releases a plan",
        "clear the errors",
        "activate the hardware",
        "set payload and thresholds",
        "reckons with a payload of",
        "is not loaded: is it in controllers_yaml",
        "; active is ",
        "a camera has moved",
    ],
)
def test_messages_of_the_table_are_in_the_code(message) -> None:
    assert message in GUIDE and message in CODE


def test_the_checklist_is_one_printed_page() -> None:
    assert len(CHECKLIST.splitlines()) <= 55 and max(map(len, CHECKLIST.splitlines())) <= 120
    assert CHECKLIST.count("- [ ]") > 15


def test_links_lead_somewhere() -> None:
    for name, anchor in re.findall(r"\]\(([A-Z_]+\.md)?(?:#([a-z0-9-]+))?\)", GUIDE):
        text = (ROOT / name).read_text() if name else GUIDE
        heads = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
        assert not anchor or anchor in heads, (name, anchor)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_the_layout_shows_topics_and_calls_services_that_exist() -> None:
    views = [topic(view).name for view in ("base", "wrist") for topic in (camera_topic, camera_info_topic)]
    known = {t.name for t in TOPICS} | {s.name for s in SERVICES} | set(views)
    used = {text.split(".")[0] for text in strings(LAYOUT["configById"]) if text.startswith("/")}
    assert used and used <= known

    def panels(node: Any) -> list[str]:
        return [node] if isinstance(node, str) else [*panels(node["first"]), *panels(node["second"])]

    assert sorted(panels(LAYOUT["layout"])) == sorted(LAYOUT["configById"])
