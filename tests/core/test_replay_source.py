from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from e0_policy.types import ActionChunk, Representation
from e0_ros.core.replay_source import load_recording, merge_chunks

P = 50_000_000


def chunk(t0: int, values: list[float], sequence: int = 0, period: int = P, **kwargs: object) -> ActionChunk:
    rows = np.array([[value, 1.0] for value in values])
    return ActionChunk(rows, t0, period, "policy", "s", sequence, embodiment="fr3", **kwargs)  # type: ignore[arg-type]


def unread(_: object) -> ActionChunk:
    raise AssertionError


def test_a_later_chunk_takes_over_from_its_t0_on() -> None:
    merged = merge_chunks([chunk(1000 + 2 * P, [10, 11, 12], 2), chunk(1000, [0, 1, 2, 3], 1)])
    assert merged.rows[:, 0].tolist() == [0, 1, 10, 11, 12]
    assert (merged.period_ns, merged.embodiment) == (P, "fr3")


def test_the_last_row_stays_in_force_over_a_gap() -> None:
    merged = merge_chunks([chunk(0, [0, 1]), chunk(4 * P, [7, 8], 1)])
    assert merged.rows[:, 0].tolist() == [0, 1, 1, 1, 7, 8]


def test_off_the_grid_the_row_in_force_is_taken() -> None:
    merged = merge_chunks([chunk(0, [0, 1, 2, 3]), chunk(2 * P - 10, [10, 11, 12], 1)])
    assert merged.rows[:, 0].tolist() == [0, 1, 10, 11]
    merged = merge_chunks([chunk(0, [0, 1, 2, 3]), chunk(2 * P + 10, [10, 11, 12], 1)])
    assert merged.rows[:, 0].tolist() == [0, 1, 2, 10, 11]


def test_one_row_chunks_of_teleoperation() -> None:
    merged = merge_chunks([chunk(i * P, [float(i)], i) for i in range(5)])
    assert merged.rows[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(ValueError, match="no joint-position"):
        merge_chunks([chunk(0, [1], representation=Representation.EE_DELTA_STEP)])
    with pytest.raises(ValueError, match="2 kinds"):
        merge_chunks([chunk(0, [1]), chunk(P, [1], period=2 * P)])
    with pytest.raises(ValueError, match="allowed are 1000000"):
        merge_chunks([chunk(0, [1]), chunk(10**15, [1], 1)])


def test_npz_round_trip_and_refusals(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, rows=np.eye(3), period_ns=P, embodiment="panda")
    recording = load_recording(path, unread)
    np.testing.assert_array_equal(recording.rows, np.eye(3))
    assert (recording.period_ns, recording.embodiment) == (P, "panda")
    np.savez(path, rows=np.eye(3))
    with pytest.raises(ValueError, match="not a replay file"):
        load_recording(path, unread)
    np.savez(path, rows=np.array([{}], dtype=object), period_ns=P, embodiment="x")
    with pytest.raises(ValueError, match="not a replay file"):
        load_recording(path, unread)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a replay file"):
        load_recording(path, unread)
    for absent in (tmp_path / "absent", tmp_path / "absent.npz"):
        with pytest.raises(ValueError, match="nothing there to replay"):
            load_recording(absent, unread)
