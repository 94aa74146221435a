"""From words like `mode:=lockstep` to a graph whose every argument and node setting was checked.

resolve("sim", parse("sim", ["simulator:=fr3_plant", "mode:=lockstep"])).processes
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml

from e0_policy.embodiment import EmbodimentError
from e0_policy.resources import config_dir
from e0_ros.config import ConfigError, closest, describe, from_mapping, load_yaml, setting_types, to_mapping
from e0_ros.environment import PACKAGES
from e0_ros.graph import GRAPHS, NODES, SIMULATORS, Graph, Process


class GraphError(ValueError):
    """A graph cannot be launched as asked; the message says why and what to do."""


def arguments_class(name: str) -> type:
    """The class of a graph's arguments.

    Raises:
        GraphError: no such graph; the closest is named.

    """
    if name not in GRAPHS:
        raise GraphError(f"no graph {name!r}{closest(name, GRAPHS)}")
    return GRAPHS[name][0]


def parse(name: str, words: Iterable[str]) -> dict[str, Any]:
    """Values of `key:=value` words, typed as the graph's arguments are (lists are comma-separated).

    Raises:
        GraphError: a word of another form, or a value of another type.

    """
    kinds, values = setting_types(arguments_class(name)), {}
    for word in words:
        key, found, text = word.partition(":=")
        if not found:
            raise GraphError(f"{word!r} is not of the form name:=value")
        values[key] = _value(text, kinds.get(key, str), word)
    return values


def _value(text: str, kind: Any, word: str) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise GraphError(f"{word!r}: true or false is needed")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise GraphError(f"{word!r}: {kind.__name__} is needed") from None
    return text if kind is str else [item for item in text.split(",") if item]


def resolve(
    name: str, values: Mapping[str, Any] | None = None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> Graph:
    """A graph with its arguments and every node's settings checked, before anything is started.

    Args:
        name: `sim`, `franka` or `teleop`.
        values: arguments other than their defaults.
        settings: settings by node, over those of the `settings` file.

    Raises:
        GraphError: an unknown argument, node or setting, a wrong value, or a node that cannot run here.

    """
    try:
        arguments: Any = _as_trained(name, from_mapping(arguments_class(name), values or {}, f"graph {name}"))
        graph = GRAPHS[name][1](arguments)
        chosen = settings_file(name, arguments.settings)
        for node, given in (settings or {}).items():
            chosen[node] = {**chosen.get(node, {}), **given}
        for node in chosen:
            if node not in [known.name for known in NODES]:
                raise GraphError(f"settings: no node {node!r}{closest(str(node), [p.name for p in graph.processes])}")
        ready = tuple(configured(process, chosen.get(process.name, {})) for process in graph.processes)
    except (ConfigError, EmbodimentError) as error:
        raise GraphError(str(error)) from None
    for process in ready:
        _check_needs(process, graph.interpreter(process))
    return replace(graph, processes=ready)


def _as_trained(graph: str, arguments: Any) -> Any:
    """Arguments with the views and their size that E0's checkpoint was trained with, if it is named and here, where a
    simulator can give them and others are not asked for. The policy's node looks closer.

    Raises:
        ConfigError: what the graph moves does not take its rows, or it cannot be read.

    """
    if not (folder := getattr(arguments, "checkpoint", "")):
        return arguments
    from e0_policy.foreign import is_foreign
    from e0_ros.policies import CONFIG, check_rows, read_card

    if is_foreign(folder) or not (Path(folder) / CONFIG).is_file():
        return arguments
    simulator = getattr(arguments, "simulator", "")
    names = SIMULATORS[simulator].step_names if simulator else ()
    card = read_card(folder)
    check_rows(card, names, f"simulator {simulator}" if simulator else f"graph {graph}")
    if not simulator:
        return arguments
    return replace(arguments, views=arguments.views or card.views, size=arguments.size or card.image_px)


def _check_needs(process: Process, interpreter: str) -> None:
    """Whether this interpreter, if it is the node's, has what the node needs."""
    missing = [name for name in process.needs if importlib.util.find_spec(name) is None] if not interpreter else []
    if missing:
        lacks = f"node {process.name} needs {', '.join(missing)}, which {sys.executable} has not"
        raise GraphError(f"{lacks}; {PACKAGES}")


def settings_file(graph: str, path: str) -> dict[str, Any]:
    """Settings by node from the named file, or from `config/<graph>.yaml` where that exists.

    Raises:
        ConfigError, GraphError: it cannot be read, or is no mapping of mappings.

    """
    file = Path(path) if path else config_dir() / f"{graph}.yaml"
    if not path and not file.is_file():
        return {}
    loaded = load_yaml(file)
    for node, values in loaded.items():
        if not isinstance(values, dict):
            raise GraphError(f"{file}: {node} is {values!r}; a mapping of settings is needed")
    return loaded


def configured(process: Process, chosen: Mapping[str, Any]) -> Process:
    """The process with checked settings.

    Raises:
        GraphError: a setting that the graph's arguments already determine, or a node that is not installed.
        ConfigError: an unknown setting, or a wrong value.

    """
    twice = sorted(set(chosen) & set(process.settings))
    if twice:
        raise GraphError(f"settings of {process.name}: {twice[0]!r} follows from the graph's arguments; set it there")
    values, plain = {**process.settings, **chosen}, {}
    classes = config_classes(process)
    known = {name: cls for cls in classes for name in setting_types(cls)}
    for key in values:
        if key not in known:
            raise GraphError(f"settings of {process.name}: unknown setting {key!r}{closest(str(key), known)}")
    for cls in classes:
        own = {key: value for key, value in values.items() if key in setting_types(cls)}
        plain.update(to_mapping(from_mapping(cls, own, f"settings of {process.name}")))
    return replace(process, settings={key: plain[key] for key in values})


def config_classes(process: Process) -> list[type]:
    """The classes of a node's settings.

    Raises:
        GraphError: the node is not part of this installation.

    """
    found = []
    for path in process.configs:
        module, name = path.split(":")
        try:
            found.append(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError) as error:
            raise GraphError(f"node {process.name} is not part of this installation: {path}: {error}") from None
    return found


def argument_lines(name: str) -> list[tuple[str, str, str]]:
    """Name, default and meaning of every argument of a graph."""
    kinds = fields(arguments_class(name))
    return [(f.name, argument_text(f.default), describe(f)) for f in kinds]


def argument_text(value: Any) -> str:
    """A value as it is written after `:=`."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def write_configuration(graph: Graph, folder: Path) -> Graph:
    """Write the resolved graph to `folder/graph.yaml` and tell the recorder, which attaches it to every bag."""
    path = folder / "graph.yaml"
    nodes = {process.name: dict(process.settings) for process in graph.processes}
    arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(graph.arguments).items()}
    text = yaml.safe_dump({"graph": graph.name, "arguments": arguments, "settings": nodes}, sort_keys=False)
    path.write_text(text, encoding="utf-8")

    def told(process: Process) -> Process:
        if process.name != "episode_recorder":
            return process
        return replace(process, settings={**process.settings, "configuration": str(path)})

    return replace(graph, processes=tuple(map(told, graph.processes)))
