from __future__ import annotations

import numpy as np
import pytest

from e0_policy.embodiment import load_embodiment
from sim.direct import DirectLoop
from sim.fr3_plant import Fr3Plant
from sim.sources import ExpertSource
from sim.trace import Trace

ARM = load_embodiment("fr3")


def run(seeds: range, max_steps: int = 0):
    source = ExpertSource("fr3_plant", ARM)
    loop = DirectLoop(Fr3Plant(("base", "wrist"), 32, 32, "fr3", 50_000_000))
    done = []
    for seed in seeds:
        source.reset("Reach-v0", seed)
        done.append(loop.run("Reach-v0", seed, source, max_steps))
    return done


def test_reaches_legally_and_with_the_same_bits():
    first, second = run(range(3)), run(range(3))
    assert all(e.success and e.violations == 0 for e in first)
    assert [e.digest for e in first] == [e.digest for e in second]
    assert len({e.digest for e in first}) == 3
    assert run(range(1, 2))[0].digest == first[1].digest, "nothing of the episode before is left"


def test_the_step_limit_ends_an_episode():
    (episode,) = run(range(1), max_steps=5)
    assert (episode.success, episode.steps) == (False, 5)


def test_a_trace_does_not_depend_on_stamps_or_order_but_on_every_value():
    poses, positions = np.ones((2, 7)), np.arange(7.0)

    def trace(shift: int, change: float = 0.0, late: bool = False) -> str:
        made = Trace()
        calls = [lambda: made.scene(shift, poses), lambda: made.reference(shift, positions + change)]
        for call in reversed(calls) if late else calls:
            call()
        made.scene(shift + 50, poses)
        made.reference(shift + 50, positions)  # of the last scene: it may or may not have been heard
        return made.digest()

    assert trace(0) == trace(1000) == trace(0, late=True)
    assert trace(0) != trace(0, change=1e-16 + 1e-9)


def test_an_unknown_task_is_refused():
    loop = DirectLoop(Fr3Plant(("base",), 32, 32, "fr3", 50_000_000))
    with pytest.raises(ValueError, match="Reach-v0"):
        loop.run("PickCube-v1", 0, ExpertSource("fr3_plant", ARM))
