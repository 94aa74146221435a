from __future__ import annotations

import threading

import numpy as np
import pytest

from e0_policy.types import Observation
from e0_ros import placed_policy
from e0_ros.placed_policy import PlacedPolicy
from tests.core.test_camera_places import PRESENT, TRAINED, Made, transform


class Listening:
    embodiment, checkpoint, execution_horizon = "panda", "", 1

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def reset(self) -> None:
        pass

    def infer(self, observation: Observation, plan: object) -> None:
        self.seen.append(observation)


def places(sec: int) -> Made:
    frames = {"base_trained_optical_frame": TRAINED, "base_color_optical_frame": PRESENT}
    return Made(transforms=[transform(frame, "panda_link0", pose, sec) for frame, pose in frames.items()])


def at(sec: int) -> Observation:
    return Observation(sec * 1_000_000_000, {"base": np.zeros((4, 4, 3), np.uint8)}, np.zeros(7), 1.0)


def test_an_episode_in_lockstep_waits_for_the_places_of_its_own_scene() -> None:
    inner = Listening()
    policy = PlacedPolicy(inner, "panda_link0", lockstep=True)
    policy.hear(places(1))
    policy.infer(at(1), None)
    policy.infer(at(5), None)  # later in the same scene
    policy.reset()
    worker = threading.Thread(target=policy.infer, args=(at(9), None))
    worker.start()
    policy.hear(places(9))
    worker.join(30.0)
    assert [o.stamp_ns // 10**9 for o in inner.seen] == [1, 5, 9]
    assert all(np.abs(o.view_offsets["base"][1:]).max() > 0.01 for o in inner.seen)


def test_nobody_who_tells_is_an_error_in_lockstep_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed_policy, "PATIENCE_S", 0.01)
    with pytest.raises(TimeoutError, match="tf_static"):
        PlacedPolicy(Listening(), "panda_link0", lockstep=True).infer(at(1), None)
    inner, said = Listening(), []
    policy = PlacedPolicy(inner, "panda_link0", lockstep=False, warn=said.append)
    policy.infer(at(1), None)
    policy.infer(at(2), None)
    assert inner.seen[0].view_offsets == {}
    assert len(said) == 1 and "base" not in said[0] and "nobody tells where a camera stood in training" in said[0]
    policy.hear(places(3))
    policy.reset()
    policy.infer(at(3), None)
    assert len(said) == 1 and "base" in inner.seen[-1].view_offsets


def test_a_policy_that_looks_back_or_ahead_does_so_through_it() -> None:
    inner = Listening()
    plain = PlacedPolicy(inner, "panda_link0", lockstep=False)  # type: ignore[arg-type]
    assert plain.observe is None and plain.prepare is None
    inner.prepare = lambda: inner.seen.append(at(0))  # type: ignore[attr-defined]
    PlacedPolicy(inner, "panda_link0", lockstep=False).prepare()  # type: ignore[arg-type, misc]
    assert inner.seen.pop().stamp_ns == 0
    inner.observe = inner.seen.append  # type: ignore[attr-defined]
    PlacedPolicy(inner, "panda_link0", lockstep=False).observe(at(1))  # type: ignore[arg-type, misc]
    assert len(inner.seen) == 1
