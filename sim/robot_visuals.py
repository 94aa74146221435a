"""A light copy of ManiSkill's Panda with a wrist camera, so that two views render in real time on the CPU.

python -m sim.robot_visuals

The arm's visual meshes keep a fifth of their 135 k triangles and the camera's housing (425 k triangles, behind its own
lens) loses its visual. Links, joints, inertias, collision meshes and the SRDF stay as they are.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sim.setup_dir import setup_dir

KEPT = 0.2
"""Share of the triangles that is kept."""
_SHARP_RAD = np.radians(20)
_SMALL = 200
_URDF = "panda_v3.urdf"
_HOUSING = re.compile(r"<visual>(?:(?!</visual>).)*d415\.stl(?:(?!</visual>).)*</visual>", re.DOTALL)


def light_panda() -> Path:
    """Path of the light URDF, made on the first call (about 5 s). Mesh paths are relative to it.

    Raises:
        RuntimeError: the shipped robot is not the one that this was written for.

    """
    target = setup_dir() / f"panda-{version('mani_skill')}-{round(100 * KEPT)}"
    if not (target / _URDF).is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".panda-", dir=target.parent) as work:
            _make(Path(work) / "panda")
            shutil.rmtree(target, ignore_errors=True)
            (Path(work) / "panda").rename(target)
    return target / _URDF


def _make(folder: Path) -> None:
    package = find_spec("mani_skill")
    if package is None or package.origin is None:
        raise RuntimeError("mani_skill is not installed; run make setup")
    shipped = Path(package.origin).parent / "assets/robots/panda"
    urdf, replaced = _HOUSING.subn("", (shipped / _URDF).read_text(encoding="utf-8"))
    if replaced != 1:
        raise RuntimeError(
            f"{shipped / _URDF} has {replaced} visuals of d415.stl instead of 1; install mani_skill 3.0.1"
        )
    folder.mkdir(parents=True)
    (folder / _URDF).write_text(urdf, encoding="utf-8")
    shutil.copy2(shipped / _URDF.replace(".urdf", ".srdf"), folder)
    for name in sorted(set(re.findall(r'filename="([^"]+)"', urdf))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".glb"):
            _decimate(shipped / name, folder / name)
        else:
            for path in (shipped / name).parent.glob(Path(name).name + "*"):
                shutil.copy2(path, folder / Path(name).parent)


def _decimate(source: Path, target: Path) -> None:
    """Quadric decimation of every part of a GLB scene, with its materials; edges sharper than 20 degrees stay sharp."""
    import fast_simplification
    import trimesh

    scene: Any = trimesh.load_scene(source)
    for name, part in scene.geometry.items():
        material = part.visual.material
        part.merge_vertices(merge_tex=True, merge_norm=True)
        points, faces = part.vertices, part.faces
        if len(faces) > _SMALL:
            points, faces = fast_simplification.simplify(points, faces, target_reduction=1 - KEPT)
        light: Any = trimesh.graph.smooth_shade(trimesh.Trimesh(points, faces), angle=_SHARP_RAD)
        light.visual = part.visual.__class__(material=material)
        scene.geometry[name] = light
    target.write_bytes(scene.export(file_type="glb", include_normals=True))


def main() -> int:
    """Make the light robot and say where it is."""
    print(f"robot visuals: {light_panda()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
