"""Runs of several episodes: over the graph, launched and stopped here, or directly in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e0_ros.launcher import Launcher
from e0_ros.resolve import resolve
from sim.adapter import SimAdapter
from sim.direct import DirectEpisode, DirectLoop
from sim.evaluator import Episode, EvaluationError, Evaluator, start
from sim.sources import ExpertSource

READY_S = 180.0


def over_graph(
    arguments: Mapping[str, Any],
    seeds: Sequence[int],
    folder: Path,
    max_steps: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    on_step: Callable[[Episode], None] | None = None,
    on_episode: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Launch the graph `sim`, run an episode per seed, stop the graph. An error of the graph ends the run.

    Args:
        arguments: arguments of the graph; `task` and `source` choose what is run.
        seeds: one episode each.
        folder: logs go to `folder/logs`, bags to `folder/bags`.
        max_steps: control steps per episode; 0: the task's own limit.
        settings: settings by node.
        on_step: called at every control step.
        on_episode: called after every episode.

    Raises:
        GraphError: the graph cannot be launched as asked, or did not come up.
    """
    episodes: list[Episode] = []
    with graph_up(arguments, folder, settings) as evaluator:
        for index, seed in enumerate(seeds):
            episodes.append(evaluator.run(index, str(arguments.get("task", "")), seed, max_steps, on_step))
            if on_episode is not None:
                on_episode(episodes[-1])
            if episodes[-1].error:
                break
    return episodes


@contextmanager
def graph_up(
    arguments: Mapping[str, Any], folder: Path, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[Evaluator]:
    """The graph `sim`, launched and ready, and an evaluator in it; both are gone afterwards. As `over_graph`.

    Raises:
        GraphError: the graph cannot be launched as asked, or did not come up.
        EvaluationError: its services did not come up.
    """
    values = {"bag_dir": str(folder / "bags"), **arguments}
    with Launcher(resolve("sim", values, settings), log_dir=folder / "logs") as launcher:

        def health() -> None:
            if not launcher.running():
                ended = ", ".join(f"{name} ({status})" for name, status in launcher.status().items() if status)
                raise EvaluationError(f"the graph has stopped: {ended or 'asked to'}; its last words are in the log")

        evaluator = start(str(values.get("source", "scripted")), health, usage=launcher.processor_s)
        try:
            launcher.wait_ready(READY_S)
            evaluator.wait_ready()
            yield evaluator
        finally:
            evaluator.close()


def scripted_directly(
    simulator: str, adapter: SimAdapter, task: str, seeds: Sequence[int], control: str = "joint_position"
) -> list[DirectEpisode]:
    """The scripted expert in the direct loop, an episode per seed, with the pictures that the graph would make."""
    loop = DirectLoop(adapter, task)
    expert = ExpertSource(simulator, loop.rig.arm, lambda: adapter.privileged().poses, control)
    episodes = []
    for seed in seeds:
        expert.reset(task, seed)
        episodes.append(loop.run(task, seed, expert, onlooker=lambda moment: None))
    expert.close()
    return episodes
