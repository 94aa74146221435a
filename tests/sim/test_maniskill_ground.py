from __future__ import annotations

import numpy as np
import pytest

from sim.maniskill_ground import grid, triangles


def test_the_border_stays_and_every_fourth_row_and_column() -> None:
    kept = grid(101 * 101, 4)
    assert kept is not None and kept.shape == (26, 26)
    assert (kept[0, 0], kept[0, -1], kept[-1, 0], kept[-1, -1]) == (0, 100, 101 * 100, 101 * 101 - 1)
    assert set(np.diff(kept[0])) == {4} and set(np.diff(kept[:, 0])) == {4 * 101}


@pytest.mark.parametrize("vertices", [100, 102, 100 * 100])
def test_what_is_no_such_grid_stays(vertices: int) -> None:
    assert grid(vertices, 4) is None


def test_triangles_cover_every_square_once_and_face_up() -> None:
    rows, columns = 3, 4
    # ManiSkill lists a row's vertices along y and rows along x
    places = np.array([[float(x), float(y)] for x in range(rows) for y in range(columns)])
    a, b, c = np.moveaxis(places[triangles(rows, columns)], 1, 0)
    doubled = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (doubled == 1.0).all() and len(doubled) == 2 * (rows - 1) * (columns - 1)
    middles = {tuple(np.floor(m)) for m in (a + b + c) / 3}
    assert middles == {(float(x), float(y)) for x in range(rows - 1) for y in range(columns - 1)}
