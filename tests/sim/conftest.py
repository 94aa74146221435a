"""What tests need of simulators."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from sim import vulkan


@pytest.fixture(scope="session")
def maniskill() -> None:
    """ManiSkill and a Vulkan driver, or a skip that says which is missing."""
    if find_spec("mani_skill") is None:
        pytest.skip("mani_skill is not installed")
    try:
        vulkan.activate()
    except vulkan.VulkanError as error:
        pytest.skip(str(error))
