"""What all trials of a plan are run under: kept when the first is run, and the same for all that follow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from e0_policy.files import finite, write_json
from e0_ros.config import ConfigError, from_mapping, load_yaml, to_mapping
from e0_ros.policies import read_card
from e0_ros.resolve import arguments_class, settings_file
from e0_ros.version import code_version
from sim.comparison import differences, shown
from sim.trial_bench import graph_values
from sim.trial_plan import TrialPlan

CONDITIONS = "conditions.json"
PLACES = (
    *("robot_ip", "serials", "gello_port", "bag_dir", "checkpoint"),
    *("python", "policy_python", "sim_python"),
)
"""Arguments of graphs that say where something is and not what it does: another arm of the kind, a camera replaced."""


def conditions(graph: str, words: Sequence[str]) -> dict[str, Any]:
    """The graph, all its arguments but `PLACES`, and the code. Files are told by their content.

    Raises:
        GraphError, ConfigError: no such graph or argument, a wrong value, or a file that cannot be read.

    """
    given = to_mapping(from_mapping(arguments_class(graph), graph_values(graph, words, "-"), f"graph {graph}"))
    arguments = {name: _content(value) for name, value in given.items() if name not in PLACES}
    arguments["settings"] = settings_file(graph, given["settings"])
    told: dict[str, Any] = json.loads(json.dumps(finite(arguments), default=str))
    return {"graph": graph, "arguments": told, "code_version": code_version()}


def keep_conditions(folder: Path, found: Mapping[str, Any], begun: bool) -> None:
    """Keep the conditions of trials, once they have `begun` for good.

    Raises:
        ConfigError: they were begun under others; names what differs.

    """
    there = kept_conditions(folder) if begun else found
    if changed := differences(there, found):
        text = "; ".join(f"{name} was {shown(was)} and is {shown(now)}" for name, (was, now) in changed.items())
        raise ConfigError(f"{folder} was begun under other conditions: {text}; go on as it was begun, or plan anew")
    write_json(folder / CONDITIONS, found)


def kept_conditions(folder: Path) -> dict[str, Any]:
    """Those of a folder; of one whose trials have not begun only the code that is here."""
    path = folder / CONDITIONS
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return told or {"code_version": code_version()}


def check_policies(plan: TrialPlan) -> None:
    """Refuse policies that are not what they were when the trials were planned.

    Raises:
        ConfigError: names the checkpoint; not which mark it goes by.

    """
    for policy in plan.sealed.values():
        name = read_card(policy["checkpoint"], policy["settings"]).name
        if name != policy["name"]:
            raise ConfigError(
                f"{policy['checkpoint']} holds {name}, and the trials were planned with {policy['name']}: "
                "put that back, or plan anew"
            )


def _content(value: Any) -> Any:
    return load_yaml(Path(value)) if isinstance(value, str) and value.endswith((".yaml", ".yml")) else value
