"""An arm of another make: limits from its URDF and MoveIt's joint_limits.yaml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from e0_policy.embodiment import EmbodimentError, load_embodiment
from tests.other_arm import JOINTS, OWN, write_arm

URDF, LIMITS = "arm.urdf", "joint_limits.yaml"


def test_the_limits_of_both_files_and_the_tighter_where_both_say_one(tmp_path: Path) -> None:
    arm = load_embodiment(str(write_arm(tmp_path)))
    assert arm.joint_names == JOINTS and arm.joints == 6 and not arm.has_kinematics
    np.testing.assert_array_equal(arm.position_lower, [-6.0, -2.0, -3.0, -6.0, -6.0, -6.0])
    np.testing.assert_array_equal(arm.position_upper, [6.0, 2.0, 3.0, 6.0, 6.0, 6.0])
    np.testing.assert_array_equal(arm.velocity, [2.0, 2.0, 3.0, 3.0, 3.0, 1.5])
    np.testing.assert_array_equal(arm.acceleration, [8.0] * 6)
    np.testing.assert_array_equal(arm.jerk, [400.0] * 6)
    assert np.isposinf(arm.envelope_gain).all() and (arm.envelope_upper == arm.position_upper).all()


def test_what_the_file_itself_says_narrows_and_never_widens(tmp_path: Path) -> None:
    arm = load_embodiment(str(write_arm(tmp_path, velocity=[1.0, 9.0, 1.0, 9.0, 9.0, 9.0], position_lower=[-1.0] * 6)))
    np.testing.assert_array_equal(arm.velocity, [1.0, 2.0, 1.0, 3.0, 3.0, 1.5])
    np.testing.assert_array_equal(arm.position_lower, [-1.0] * 6)


def test_a_name_leads_no_way_out_and_a_whole_path_is_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    path = write_arm(folder)
    (folder / URDF).rename(tmp_path / URDF)
    with pytest.raises(EmbodimentError, match="leads out of"):
        load_embodiment(str(write_arm(folder, limits={"urdf": f"../{URDF}", "joint_limits": LIMITS}, files=False)))
    (folder / "link.urdf").symlink_to(tmp_path / URDF)
    with pytest.raises(EmbodimentError, match="leads out of"):
        load_embodiment(str(write_arm(folder, limits={"urdf": "link.urdf", "joint_limits": LIMITS}, files=False)))
    whole = {"urdf": str(tmp_path / URDF), "joint_limits": LIMITS}
    assert load_embodiment(str(write_arm(folder, limits=whole, files=False))).joints == 6
    assert path.parent == folder


BOMB = '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><robot name="r">&b;</robot>'


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (URDF, lambda text: BOMB, "declares a document type"),
        (URDF, lambda text: BOMB.encode("utf-16"), "declares a document type"),
        (URDF, lambda text: '<!DOCTYPE r SYSTEM "file:///etc/passwd"><robot/>', "declares a document type"),
        (URDF, lambda text: text[:200], "this is no URDF"),
        (URDF, lambda text: b"\xff\xfe\x00", "this is no URDF"),
        (URDF, lambda text: '<?xml version="1.0" encoding="martian"?><robot/>', "this is no URDF"),
        (URDF, lambda text: "<robot/>", "there are none .a xacro is to be expanded first"),
        (URDF, lambda text: text.replace('"elbow"', '"elbow_joint"'), "there is no joint elbow; there are base, "),
        (URDF, lambda text: text.replace("revolute", "prismatic"), "base is prismatic; allowed are revolute and"),
        (URDF, lambda text: text.replace('velocity="3.0"', 'velocity="nan"'), "velocity is 'nan'; a number is needed"),
        (URDF, lambda text: text.replace('velocity="3.0"', 'velocity="${v}"'), "a number is needed"),
        (URDF, lambda text: text.replace('velocity="3.0"', 'velocity="0"'), "above 0 is needed for every joint"),
        (LIMITS, lambda text: "joint_limits: [1", "this is no YAML"),
        (LIMITS, lambda text: "limits: {}", "there is no joint_limits"),
        (LIMITS, lambda text: text.replace("max_jerk: 400.0", "max_jerk: fast"), "base: max_jerk is 'fast'"),
        (
            LIMITS,
            lambda text: text.replace("has_jerk_limits: true", "has_jerk_limits: false"),
            "missing key.*jerk, which",
        ),
        (LIMITS, None, "there is no file"),
    ],
)
def test_what_is_wrong_is_said_with_its_file(tmp_path: Path, file: str, change, message: str) -> None:
    path = write_arm(tmp_path)
    changed = b"" if change is None else change((tmp_path / file).read_text())
    (tmp_path / file).write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    if change is None:
        (tmp_path / file).unlink()
    with pytest.raises(EmbodimentError, match=message):
        load_embodiment(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joint_names": None}, "a list of joint_names is needed"),
        ({"limits": "arm.urdf"}, "allowed is {urdf: FILE, joint_limits: FILE}, or one"),
        ({"limits": {"urfd": URDF}}, "allowed is {urdf: FILE"),
        ({"limits": {"urdf": URDF}}, "missing key.* acceleration, jerk, which the files of its limits do not hold"),
        (
            {"kinematics": "franka"},
            "have 7 joints, and there are 6; an arm of another make needs kinematics: none",
        ),
        ({"kinematics": "ur5"}, "kinematics is 'ur5'; allowed are franka"),
        ({"speed_m_s": 1.0}, "no workspace and no speed can be kept; say so: workspace_lower"),
        ({"workspace_lower": [-1.0, -1.0, -1.0]}, "no workspace and no speed can be kept"),
        ({"acceleration": [0.0] * 6}, "acceleration is .*; above 0 is needed"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, change, message: str) -> None:
    with pytest.raises(EmbodimentError, match=message):
        load_embodiment(str(write_arm(tmp_path, **change)))


def test_kinematics_are_never_assumed(tmp_path: Path) -> None:
    path = write_arm(tmp_path)
    path.write_text(yaml.safe_dump({key: value for key, value in OWN.items() if key != "kinematics"}))
    with pytest.raises(EmbodimentError, match=r"missing key\(s\) kinematics"):
        load_embodiment(str(path))
