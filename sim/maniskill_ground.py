"""A ground of fewer triangles, for real time: ManiSkill's has 20,000 of 1 m, more than a light Panda, for a plane.

It looks the same but for the rounding of a texture's coordinates: a pixel here and there differs by 1 of 255.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_GROUND = "ground"


def coarsen(env: Any, every: int = 4) -> None:
    """Keep every fourth row and column of the ground's square grid; a ground that is none stays as it is."""
    import sapien

    for entity in env.scene.actors[_GROUND]._objs if _GROUND in env.scene.actors else ():
        body = entity.find_component_by_type(sapien.render.RenderBodyComponent)
        (part,) = body.render_shapes[0].parts
        kept = grid(len(part.vertices), every)
        if kept is None or len(part.triangles) != 2 * (round(len(part.vertices) ** 0.5) - 1) ** 2:
            return
        places = kept.ravel()
        shape = sapien.render.RenderShapeTriangleMesh(
            vertices=part.vertices[places],
            triangles=triangles(*kept.shape),
            normals=part.get_vertex_normal()[places],
            uvs=part.get_vertex_uv()[places],
            material=part.material,
        )
        entity.remove_component(body)
        entity.add_component(sapien.render.RenderBodyComponent().attach(shape))


def grid(vertices: int, every: int) -> NDArray[np.int64] | None:
    """Which vertices `(n, n)` of a square grid are kept, listed row by row; None if its border would be lost."""
    side = round(vertices**0.5)
    if side * side != vertices or (side - 1) % every:
        return None
    return np.arange(vertices).reshape(side, side)[::every, ::every]


def triangles(rows: int, columns: int) -> NDArray[np.int64]:
    """Two triangles `(m, 3)` per square of a grid, wound as ManiSkill winds them."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[:-1, 1:], index[1:, 1:]
    corners = np.stack((a, b, c, b, d, c), axis=-1)
    return corners.reshape(-1, 3)
