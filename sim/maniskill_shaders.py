"""A light copy of SAPIEN's shader pack `minimal`: the same pictures, to the bit, in less time per pixel.

It looks nothing up in an environment map, which no scene here has, and draws no positions and segmentation, which
nobody asks for. A renderer on the processor pays for both at every pixel.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sim.setup_dir import setup_dir

NAME = "light"
"""Name of the pack among ManiSkill's."""
_CUTS = {
    "minimal/gbuffer.frag": (
        ("  color += diffuseIBL(diffuseAlbedo, wnormal);\n", ""),
        ("  color += specularIBL(fresnel, roughness,\n", ""),
        ("                       wnormal,\n", ""),
        ("                       mat3(cameraBuffer.viewMatrixInverse) * camDir);\n", ""),
        ("layout(location = 1) out ivec4 outPositionSegmentation;\n", ""),
        ("  outPositionSegmentation = ivec4(ivec3(inPosition * 1000), inSegmentation[1]);\n", ""),
    ),
    "minimal/composite0.frag": (
        (
            "pow(getBackgroundColor((cameraBuffer.viewMatrixInverse * csPosition).xyz), vec3(1/2.2));",
            "vec3(0);",
        ),
    ),
}
"""Texts that each shader must hold exactly once, and what stands there instead."""


def register() -> None:
    """Tell ManiSkill of the pack, which is made on the first call; cameras ask for it by `NAME`.

    If the installed SAPIEN has other shaders than those that this was written for, its own pack goes by that name.
    """
    from mani_skill.render import shaders

    own: Any = shaders.PREBUILT_SHADER_CONFIGS["minimal"]
    if NAME not in shaders.PREBUILT_SHADER_CONFIGS:
        folder = _pack()
        names, transforms = ({"Color": told["Color"]} for told in (own.texture_names, own.texture_transforms))
        light = shaders.ShaderConfig(str(folder / "minimal"), names, texture_transforms=transforms) if folder else own
        shaders.PREBUILT_SHADER_CONFIGS[NAME] = light


def choose_formats() -> None:
    """Choose the formats of the pictures for cameras to come, as ManiSkill does for `minimal` alone."""
    import sapien

    for picture in ("Color", "ColorRaw"):
        sapien.render.set_picture_format(picture, "r8g8b8a8unorm")


def _pack() -> Path | None:
    """Folder with the pack and what it includes; None if SAPIEN's is another one."""
    import sapien

    shipped = Path(sapien.__file__).parent / "vulkan_shader"
    target = setup_dir() / f"shaders-{version('sapien')}"
    if target.is_dir():
        return target
    try:
        cut = {name: _cut((shipped / name).read_text(encoding="utf-8"), cuts) for name, cuts in _CUTS.items()}
    except (OSError, ValueError):
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".shaders-", dir=target.parent) as work:
        for part in ("common", "minimal"):
            shutil.copytree(shipped / part, Path(work) / "made" / part)
        for name, text in cut.items():
            (Path(work) / "made" / name).write_text(text, encoding="utf-8")
        with contextlib.suppress(OSError):  # another process was faster
            (Path(work) / "made").rename(target)
    return target


def _cut(text: str, cuts: tuple[tuple[str, str], ...]) -> str:
    for old, new in cuts:
        if text.count(old) != 1:
            raise ValueError(f"{old.strip()!r} is there {text.count(old)} times")
        text = text.replace(old, new)
    return text
