from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from e0_policy import bench, diffusion
from e0_policy.diffusion import SamplerSettings
from e0_policy.engine import Engine
from e0_policy.model_config import preset


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_report_has_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Short, on the CPU: latency, stages, ceilings, agreement of fast with eager; a missing GPU says so."""
    path = tmp_path / "policy.json"
    assert bench.main(["--steps", "1", "2", "--repeat", "3", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    figures = report["devices"]["cpu"]
    for row, steps in zip(figures["rows"], (1, 2), strict=True):
        assert row["steps"] == steps and row["token_agreement"] > 0.99
        assert 0 < row["fast_ms"]["p50"] <= row["fast_ms"]["p99"]
        assert all(row["stages_ms"][name] > 0 for name in ("embed", "prefix", "steps"))
        assert row["floor_ms"] > 0
    assert figures["ceilings"]["matmul_gflops"] > 0 and figures["ceilings"]["copy_gb_s"] > 0
    shown = capsys.readouterr().out
    assert "eager p50" in shown
    if not torch.cuda.is_available():
        assert report["devices"]["cuda"] == bench.UNMEASURED and bench.UNMEASURED in shown


def test_one_command_measures_every_number_of_views_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    arguments = ["--views", "1,3", "--horizon", "2,4", "--steps", "1", "--repeat", "1", "--device", "cpu"]
    assert bench.main([*arguments, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["devices"]["cpu"]["rows"]
    assert [(row["views"], row["horizon"]) for row in rows] == [(1, 2), (1, 4), (3, 2), (3, 4)]
    assert rows[0]["floor_ms"] < rows[-1]["floor_ms"]


def test_wrong_settings_end_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--steps", "0"]) == 2
    assert "steps is 0" in capsys.readouterr().err
    assert bench.main(["--views", "0"]) == 2
    assert "views is ()" in capsys.readouterr().err


def test_quantiles() -> None:
    assert bench.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert bench.quantile(list(range(101)), 0.99) == 99


@pytest.mark.slow
@pytest.mark.skipif("E0_FULL_SIZE" not in os.environ, reason="set E0_FULL_SIZE=1: needs 8 GiB of memory and minutes")
def test_full_size_fits_in_eight_gib() -> None:
    """The 3.4 G model in bfloat16 on a CPU: H = 10, N = 2, one view."""
    config = preset("full", views=["base"])
    settings = SamplerSettings.of(config, steps=2)
    model = bench.random_model(config, "cpu", torch.bfloat16)
    noise = diffusion.draw_noise(config, settings, 1, torch.Generator().manual_seed(0))
    out = Engine(model, settings).sample(bench.random_observation(config), noise)
    assert sum(p.numel() for p in model.parameters()) > 3.3e9
    assert out.tokens.shape == (1, 10, 8) and out.entropy.isfinite().all()
    assert bench.memory_mb("cpu") < 8 * 1024**3 / 1e6
