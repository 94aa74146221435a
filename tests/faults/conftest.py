from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.rig import Rig


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*parameters: str) -> Rig:
        made.append(Rig(*parameters))
        return made[-1]

    yield make
    for each in made:
        each.close()
