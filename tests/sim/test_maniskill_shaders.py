from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim import maniskill_shaders
from sim.maniskill import ManiSkillAdapter


def test_another_sapien_keeps_its_own_shaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sapien", reason="sapien is not installed")
    monkeypatch.setattr(maniskill_shaders, "setup_dir", lambda: tmp_path)
    monkeypatch.setattr(maniskill_shaders, "_CUTS", {"minimal/gbuffer.frag": (("what no shader says", ""),)})
    assert maniskill_shaders._pack() is None
    assert not any(tmp_path.iterdir())


def test_the_pack_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sapien", reason="sapien is not installed")
    monkeypatch.setattr(maniskill_shaders, "setup_dir", lambda: tmp_path)
    made = maniskill_shaders._pack()
    assert made is not None and (made / "minimal/gbuffer.vert").is_file() and (made / "common").is_dir()
    assert "outPositionSegmentation" not in (made / "minimal/gbuffer.frag").read_text(encoding="utf-8")
    (made / "minimal/gbuffer.vert").unlink()
    assert maniskill_shaders._pack() == made and not (made / "minimal/gbuffer.vert").exists()


@pytest.mark.sim
@pytest.mark.usefixtures("maniskill")
def test_pictures_are_those_of_the_shipped_shaders_to_the_bit() -> None:
    """PushCube has a textured target, and every scene the table with its normal map."""
    seen = []
    for pack in ("minimal", maniskill_shaders.NAME):
        adapter = ManiSkillAdapter(("base", "side", "wrist"), 96, 96)
        adapter._size["shader_pack"] = pack
        adapter.reset("PushCube-v1", 2)
        used = {camera.config.shader_config.shader_pack for camera in adapter._cameras.values()}
        assert all((pack == "minimal") == (name == "minimal") for name in used)
        adapter.start_render()
        seen.append(adapter.finish_render())
        adapter.close()
    for view, picture in seen[0].items():
        assert np.array_equal(picture, seen[1][view]) and picture.std() > 10
