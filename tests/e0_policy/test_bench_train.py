from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from e0_policy import bench_train
from e0_policy.bench_report import UNMEASURED


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_report_has_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The real step at a small batch: total, parts that make it up, products counted; a missing GPU says so."""
    path = tmp_path / "train.json"
    assert bench_train.main(["--batch", "2", "--views", "3", "--repeat", "3", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    plain, committed = report["devices"]["cpu"]["rows"]
    assert (plain["committed"], committed["committed"]) == (0, 4)
    for row in (plain, committed):
        assert row["batch"] == 2 and row["views"] == 3 and row["step_s"]["n"] == 3
        assert 0 < row["step_s"]["p50"] <= row["step_s"]["p99"]
        assert set(row["parts_s"]) == {"augment", "forward", "backward", "optimizer"}
        assert all(seconds > 0 for seconds in row["parts_s"].values())
        assert row["gflop"] > 0 and row["share_of_ceiling"] > 0
    shown = capsys.readouterr().out
    assert "samples/s" in shown
    if not torch.cuda.is_available():
        assert report["devices"]["cuda"] == UNMEASURED and UNMEASURED in shown


def test_wrong_settings_end_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_train.main(["--committed", "8"]) == 2
    assert "committed_max is 8" in capsys.readouterr().err
