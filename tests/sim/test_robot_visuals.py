import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mani_skill", reason="ManiSkill is not installed")

MAKE = """
import sys
from pathlib import Path
from sim import robot_visuals
robot_visuals._make(Path(sys.argv[1]))
print(sorted({"sapien", "torch", "mani_skill"} & set(sys.modules)))
"""


def test_the_light_arm_is_the_shipped_one_without_the_cameras_housing_and_needs_no_renderer(tmp_path):
    """Set-up makes it on machines where SAPIEN cannot be imported yet: a bare Debian has no libX11."""
    command = [sys.executable, "-c", MAKE, str(tmp_path / "panda")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    import mani_skill

    shipped = (Path(mani_skill.PACKAGE_ASSET_DIR) / "robots/panda/panda_v3.urdf").read_text()
    light = (tmp_path / "panda/panda_v3.urdf").read_text()
    assert shipped.count("<visual>") == light.count("<visual>") + 1
    without_visuals = [re.sub(r"(?s)<visual>.*?</visual>", "", urdf) for urdf in (shipped, light)]
    assert re.sub(r"\s", "", without_visuals[0]) == re.sub(r"\s", "", without_visuals[1])
    for mesh in set(re.findall(r'filename="([^"]+)"', light)):
        assert (tmp_path / "panda" / mesh).is_file()
