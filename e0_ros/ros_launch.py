"""A graph for launch_ros: what the files in `launch/` return. Needs a ROS 2 install."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    ResetLaunchConfigurations,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from e0_policy.resources import config_dir
from e0_ros.drivers import RESTART, SHUTDOWN, Foreign
from e0_ros.environment import child_environment
from e0_ros.graph import Graph, Process
from e0_ros.readiness import require_alone
from e0_ros.resolve import argument_lines, parse, resolve, write_configuration


def description(name: str) -> LaunchDescription:
    """Launch description of a graph; its arguments are declared with their defaults and meanings."""
    lines = argument_lines(name)
    declared = [DeclareLaunchArgument(key, default_value=default, description=text) for key, default, text in lines]

    def actions(context: LaunchContext) -> list[Any]:
        words = [f"{key}:={LaunchConfiguration(key).perform(context)}" for key, _, _ in lines]
        words += _undeclared(name, context.argv, {key for key, _, _ in lines})
        graph = resolve(name, parse(name, words))
        if _launched(name):
            require_alone(graph)
        graph = write_configuration(graph, Path(tempfile.mkdtemp(prefix="e0_launch_")))
        nodes = [_node(graph, process) for process in graph.processes]
        return [*_environment(context.environment), *map(_foreign, graph.foreign), *nodes]

    return LaunchDescription([*declared, OpaqueFunction(function=actions)])


def _undeclared(name: str, argv: Iterable[str], declared: set[str]) -> list[str]:
    """Words of `ros2 launch` that no argument is declared for, which launch takes in silence.

    None where another launch file includes this one: they may be its own.
    """
    return [word for word in argv if _launched(name) and word.partition(":=")[0] not in declared]


def _launched(name: str) -> bool:
    """Whether `ros2 launch` was given our file, which another launch file may include as well."""
    return f"{name}.launch.py" in [Path(word).name for word in sys.argv]


def _node(graph: Graph, process: Process) -> Node:
    """One of our nodes; another interpreter runs the console script as its argument."""
    return Node(
        package="e0_ros",
        executable=process.name,
        exec_name=process.name,  # not that of its interpreter
        prefix=graph.interpreter(process) or None,
        parameters=[graph.parameters(process)],
        output="screen",
        emulate_tty=True,
        respawn=process.on_death == RESTART,
        respawn_delay=1.0,
        on_exit=_on_exit(process),
    )


def _environment(environ: Mapping[str, str]) -> list[SetEnvironmentVariable]:
    """What child_environment adds for every process, drivers too; where packages lie is the install's to say."""
    child = child_environment(environ, profiles=config_dir() / "fastdds.xml")
    return [SetEnvironmentVariable(k, v) for k, v in child.items() if k not in environ and not k.endswith("_PATH")]


def _foreign(item: Foreign) -> Any:
    if item.verb == "run":
        return Node(package=item.package, executable=item.target, arguments=list(item.arguments), output="screen",
                    respawn=item.on_death == RESTART, respawn_delay=1.0, on_exit=_on_exit(item))  # fmt: skip
    file = Path(get_package_share_directory(item.package)) / "launch" / item.target
    arguments = [tuple(word.split(":=", 1)) for word in item.arguments]
    included = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(file)), launch_arguments=arguments)
    # two cameras have the same names, and ours mean nothing to them; forwarding=False would take the environment too
    return GroupAction([ResetLaunchConfigurations(), included])


def _on_exit(item: Process | Foreign) -> list[Any] | None:
    return [Shutdown(reason=f"{item.name} ended")] if item.on_death == SHUTDOWN else None
