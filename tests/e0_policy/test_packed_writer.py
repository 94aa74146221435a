from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e0_policy.dataset import DatasetError, Episode, PackedSource, write_packed
from e0_policy.image_cache import Scaled
from e0_policy.packed_writer import Header, PackedWriter
from e0_policy.types import Representation

HEADER = Header("panda", 50_000_000, ("base", "wrist"), 16, ("joint", "gripper"), ("x", "y"), ("a", "b"))


def episode(i: int, frames: int = 4) -> tuple[Episode, dict[str, np.ndarray], int, np.ndarray]:
    rng = np.random.default_rng(i)
    images = {view: rng.integers(0, 255, (frames, 16, 16, 3)).astype(np.uint8) for view in HEADER.views}
    labels = rng.random((frames, 2)).astype(np.float32)
    return Episode(f"e{i}", f"do {i}", rng.random((frames, 2)), rng.random((frames, 2))), images, i % 2, labels


def written(folder: Path, episodes: range) -> Path:
    writer = PackedWriter(folder, HEADER)
    for i in episodes:
        writer.add(*episode(i, 3 + i))
    return writer.close()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_of_a_benchmark_have_columns_and_a_meaning_of_their_own(tmp_path: Path) -> None:
    header = replace(HEADER, labels=(), tasks=(), step_names=("dx", "dy", "gripper"))
    made, images, _, _ = episode(0)
    writer = PackedWriter(tmp_path / "out", header)
    with pytest.raises(DatasetError, match=r"actions is float64 \(4, 2\); needed is float64 \(4, 3\)"):
        writer.add(made, images)
    writer.add(replace(made, actions=np.ones((4, 3))), images)
    source = PackedSource(writer.close())
    assert (source.representation, source.action_names) == (Representation.EE_DELTA_STEP, header.step_names)
    assert source.proprioception_names == HEADER.names and source.episodes[0].actions.shape == (4, 3)
    write_packed(Scaled(source, ("base",), 8), tmp_path / "again")
    again = PackedSource(tmp_path / "again")
    assert (again.representation, again.action_names) == (Representation.EE_DELTA_STEP, header.step_names)


def test_a_folder_from_before_has_joint_positions_and_one_from_later_is_refused(tmp_path: Path) -> None:
    index = written(tmp_path / "out", range(1)) / "index.json"
    told = json.loads(index.read_text())
    assert told.pop("representation") == "joint_position"
    index.write_text(json.dumps(told))
    assert PackedSource(tmp_path / "out").representation is Representation.JOINT_POSITION
    index.write_text(json.dumps({**told, "representation": "ee_twist"}))
    with pytest.raises(ValueError, match="'ee_twist'; known are joint_position, ee_pose, ee_delta_step"):
        PackedSource(tmp_path / "out")


def test_what_is_read_back_is_what_was_added(tmp_path: Path) -> None:
    writer = PackedWriter(tmp_path / "out", HEADER)
    for i in range(3):
        writer.add(*episode(i, 3 + i), note={"seed": i})
        writer.leave_out({"seed": 10 + i})
    assert not (tmp_path / "out").exists()
    source = PackedSource(writer.close())
    assert (source.embodiment, source.period_ns, source.views) == ("panda", 50_000_000, ("base", "wrist"))
    for i, got in enumerate(source.episodes):
        made, images, _, labels = episode(i, 3 + i)
        assert (got.identifier, got.instruction) == (made.identifier, made.instruction)
        np.testing.assert_array_equal(got.proprioception, made.proprioception)
        np.testing.assert_array_equal(got.actions, made.actions)
        for t in range(len(got)):
            for view, image in source.images(i, t).items():
                np.testing.assert_array_equal(image, images[view][t])
    start = 3 + 4
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "labels.npy")[start:], labels)
    assert np.load(tmp_path / "out" / "task.npy").tolist() == [0] * 3 + [1] * 4 + [0] * 5
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [line["seed"] for line in index["left_out"]] == [10, 11, 12] and index["count"] == 12
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".npy", ".json"}


def test_a_table_that_does_not_fit_is_refused_and_nothing_of_it_stays(tmp_path: Path) -> None:
    writer = PackedWriter(tmp_path / "out", HEADER)
    writer.add(*episode(0))
    made, images, task, labels = episode(1)
    with pytest.raises(DatasetError, match=r"e1: view_wrist is uint8 \(4, 8, 8, 3\); needed is uint8 \(4, 16, 16, 3\)"):
        writer.add(made, {**images, "wrist": images["wrist"][:, :8, :8]}, task, labels)
    with pytest.raises(DatasetError, match="e1: labels is float64"):
        writer.add(made, images, task, labels.astype(float))
    assert len(PackedSource(writer.close()).episodes) == 1


CHILD = """
import os, signal, sys
from pathlib import Path
from tests.e0_policy.test_packed_writer import HEADER, PackedWriter, episode
writer = PackedWriter(Path(sys.argv[1]), HEADER)
for i in range(2):
    writer.add(*episode(i, 3 + i))
made, images, task, labels = episode(2, 5)
for name in ("view_base", "proprioception"):  # half of an episode
    writer._arrays[name].append(images["base"] if name == "view_base" else made.proprioception[:1])
writer._journal.write(b'{"frames": 5, "identi')
writer._journal.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_reads_as_nothing_and_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", CHILD, str(out)], env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    assert done.returncode == -signal.SIGKILL and not out.exists()
    with pytest.raises(DatasetError, match=r"no index\.json"):
        PackedSource(tmp_path / "out.partial")
    with pytest.raises(DatasetError, match="begun with other values"):
        PackedWriter(out, replace(HEADER, origin="otherwise"))
    writer = PackedWriter(out, HEADER)
    assert [line["identifier"] for line in writer.journal] == ["e0", "e1"] and (writer.frames, writer.kept) == (7, 2)
    writer.add(*episode(2, 5))
    writer.close()
    assert files(out) == files(written(tmp_path / "other", range(3)))
    assert len(PackedSource(out).episodes) == 3


def test_one_killed_just_before_its_name_is_given_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            written(tmp_path / "out", range(2))
    writer = PackedWriter(tmp_path / "out", HEADER)
    assert not (tmp_path / "out.partial" / "index.json").exists()
    writer.add(*episode(2, 5))
    writer.close()
    assert files(tmp_path / "out") == files(written(tmp_path / "other", range(3)))


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    first = PackedWriter(tmp_path / "out", HEADER)
    with pytest.raises(DatasetError, match="written by another process"):
        PackedWriter(tmp_path / "out", HEADER)
    first.add(*episode(0))
    first.close()
    with pytest.raises(DatasetError, match="exists; give a new folder"):
        PackedWriter(tmp_path / "out", HEADER)


def test_arrays_that_lost_bytes_are_told(tmp_path: Path) -> None:
    writer = PackedWriter(tmp_path / "out", HEADER)
    writer.add(*episode(0))
    writer._journal.close()
    path = tmp_path / "out.partial" / "view_base.npy"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(DatasetError, match=r"view_base\.npy has \d+ of \d+ bytes; delete"):
        PackedWriter(tmp_path / "out", HEADER)
