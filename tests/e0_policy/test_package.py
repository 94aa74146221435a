from __future__ import annotations

import subprocess
import sys

import pytest

import e0_policy


@pytest.mark.parametrize("name", e0_policy.__all__)
def test_every_export_is_there(name: str) -> None:
    assert getattr(e0_policy, name).__name__ == name


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'E1Model'"):
        _ = e0_policy.E1Model


def test_the_numpy_part_needs_no_torch() -> None:
    code = (
        "import sys, e0_policy, e0_policy.types, e0_policy.policy, e0_policy.embodiment; print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
