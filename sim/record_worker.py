"""A worker of an unattended recording: a graph of its own, episodes as they are asked for, a line of JSON for each.

Lines in: `{"task": ..., "seed": ..., "name": ...}`. Lines out: `{"ready": true}`, then the episode's figures. The end
of the input is the end of the work, so no worker outlives the process that asks.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e0_ros.core.bag_reader import Bag
from e0_ros.core.grading import grade_bag
from e0_ros.readiness import wait_until_alone
from e0_ros.resolve import GraphError
from sim.evaluator import Episode, EvaluationError
from sim.record_jobs import Job, set_aside
from sim.runs import graph_up

EMPTY_S = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the worker; its one argument is JSON: `arguments`, `settings`, `folder`, `max_steps`."""
    (text,) = sys.argv[1:] if argv is None else argv
    spec = json.loads(text)
    try:
        if others := wait_until_alone(EMPTY_S):
            raise EvaluationError(f"its ROS domain has nodes already ({', '.join(others)}); choose by --domain")
        with graph_up(spec["arguments"], Path(spec["folder"]), spec["settings"]) as evaluator:
            _say({"ready": True})
            for index, line in enumerate(sys.stdin):
                job = Job(**json.loads(line))
                for _ in set_aside(Path(spec["arguments"]["bag_dir"]), job):
                    pass
                begun = time.monotonic()
                episode = evaluator.run(index, job.task, job.seed, spec["max_steps"], name=job.name)
                _say(result(episode, time.monotonic() - begun))
    except (GraphError, EvaluationError) as error:
        _say({"fatal": str(error)})
        return 1
    return 0


def result(episode: Episode, wall_s: float) -> dict[str, Any]:
    """What the process that asks wants to know of an episode, and the verdict on its bag."""
    keys = ("task", "seed", "name", "success", "error", "steps", "max_steps", "sim_s")
    keys += ("lost", "stale", "refused", "bytes", "bag")
    flags = [] if episode.error else [str(flag) for flag in grade_bag(Bag(Path(episode.bag)))]
    return {**{key: getattr(episode, key) for key in keys}, "flags": flags, "wall_s": wall_s}


def _say(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    sys.exit(main())
