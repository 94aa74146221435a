from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from e0_policy.lerobot_server import LeRobotPolicy


@pytest.mark.parametrize("image", ["observation.image", "observation.images.base"])
@pytest.mark.parametrize("steps", [1, 2])
def test_observations_of_several_steps_are_known_by_their_images_whatever_these_are_called(
    image: str, steps: int
) -> None:
    policy = LeRobotPolicy.__new__(LeRobotPolicy)  # without lerobot, which makes the rest
    policy._images = [image]
    policy._before, policy._plan = (lambda values: values), (lambda batches: [b[image].shape for b in batches])
    config = SimpleNamespace(input_features={image: 0, "observation.state": 0})
    policy._policy = SimpleNamespace(config=config, reset=lambda: None)
    pictures, states = np.zeros((steps, 8, 6, 3), np.uint8), np.zeros((steps, 2), np.float32)
    seen = (pictures, states) if steps > 1 else (pictures[0], states[0])
    request = dict(zip((image, "observation.state"), seen, strict=True))
    assert policy.infer(request)["actions"] == [(3, 8, 6)] * steps
