from __future__ import annotations

import numpy as np
import pytest
import yaml

from e0_policy.embodiment import EmbodimentError, embodiment_names, load_embodiment
from e0_policy.resources import config_dir


@pytest.mark.parametrize("name", embodiment_names())
def test_shipped_arms_have_a_workspace_that_holds_their_home(name: str) -> None:
    arm = load_embodiment(name)
    assert (arm.joints, arm.has_kinematics) == ((16, False) if name == "dual_panda" else (7, True))
    assert arm.workspace_lower.shape == (3,) and (0 < arm.speed_m_s <= 3.0 or not arm.has_kinematics)
    assert (arm.workspace_lower < arm.workspace_upper).all()
    with pytest.raises(ValueError, match="read-only"):
        arm.workspace_upper[0] = 9.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workspace_lower": None}, "missing key.*workspace_lower"),
        ({"workspace_upper": [1.0, 1.0]}, "workspace_upper must be 3 numbers"),
        ({"workspace_upper": [1.0, 1.0, float("inf")]}, "both finite"),
        ({"workspace_upper": [-2.0, 1.0, 1.0]}, "below workspace_upper in x, y and z"),
        ({"speed_m_s": 0.0}, "speed_m_s is 0.0; above 0, at most 3.0 is needed"),
        ({"speed_m_s": float("inf")}, "speed_m_s is inf"),
        ({"speed_ms": 1.0}, "did you mean 'speed_m_s'"),
        ({"home": [0.0] * 6}, "home must be 7 numbers"),
        ({"position_lower": [9.0] * 7}, "position_lower must be below position_upper"),
        ({"velocity": [-1.0] * 7}, "velocity is .*; above 0 is needed"),
        ({"kinematics": "none"}, "no workspace and no speed can be kept; say so"),
    ],
)
def test_a_file_that_would_switch_a_limit_off_is_refused(change, message: str, tmp_path) -> None:
    data = yaml.safe_load((config_dir() / "embodiment" / "fr3.yaml").read_text()) | change
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in data.items() if value is not None}))
    with pytest.raises(EmbodimentError, match=message):
        load_embodiment(str(path))


def test_an_arm_of_ones_own_and_an_unknown_one(tmp_path) -> None:
    data = yaml.safe_load((config_dir() / "embodiment" / "fr3.yaml").read_text())
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data | {"name": "mine", "workspace_upper": [0.6, 0.3, 0.8]}))
    np.testing.assert_array_equal(load_embodiment(str(path)).workspace_upper, [0.6, 0.3, 0.8])
    with pytest.raises(EmbodimentError, match="did you mean 'fr3'"):
        load_embodiment("fr4")
