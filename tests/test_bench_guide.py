"""The bench guide and the Foxglove layout speak of verbs, arguments, services and messages that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from e0_ros.cli import VERBS
from e0_ros.core.fci import ERROR_MEANS, MODE_MEANS
from e0_ros.core.take_session import KEYS
from e0_ros.graph import FrankaArguments, SimArguments, TeleopArguments
from e0_ros.interfaces import SERVICES, TOPICS, camera_info_topic, camera_topic
from e0_ros.resolve import config_classes

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


def test_every_launch_argument_exists() -> None:
    known = {f.name for cls in (FrankaArguments, TeleopArguments, SimArguments) for f in fields(cls)}
    assert set(re.findall(r"\b([a-z_]+):=", GUIDE)) <= known


def test_every_topic_and_service_exists() -> None:
    known = {s.name for s in SERVICES} | {t.name for t in TOPICS}
    assert {name.rstrip("/") for name in re.findall(r"/e0/[a-z_/]+", GUIDE)} <= known


def test_settings_keys_and_errors_are_those_of_the_code() -> None:
    from e0_ros.graph import ARM_SESSION, EXECUTOR

    known = {f.name for cls in config_classes(EXECUTOR) for f in fields(cls)}
    for block in re.findall(r"chunk_executor: \{([^}]*)\}", GUIDE):
        assert {pair.split(":")[0].strip() for pair in block.split(",")} <= known
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
