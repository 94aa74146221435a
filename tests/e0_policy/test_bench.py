from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from e0_policy import bench, bench_report, diffusion, fast_path
from e0_policy.diffusion import SamplerSettings
from e0_policy.engine import Engine
from e0_policy.inference import served_dtype
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
    for row, case in zip(figures["rows"], ((1, 0), (1, 4), (2, 0), (2, 4)), strict=True):
        assert (row["steps"], row["committed"]) == case and row["token_agreement"] > 0.99
        assert 0 < row["fast_ms"]["p50"] <= row["fast_ms"]["p99"] and row["fast_ms"]["n"] == 3
        assert all(row["stages_ms"][name] > 0 for name in ("noise", "embed", "prefix", "steps"))
        assert row["floor_ms"] > 0
    assert figures["ceilings"]["matmul_gflops"] > 0 and figures["ceilings"]["copy_gb_s"] > 0
    shown = capsys.readouterr().out
    assert "eager p50" in shown
    if not torch.cuda.is_available():
        assert report["devices"]["cuda"] == bench_report.UNMEASURED and bench_report.UNMEASURED in shown


def test_one_command_measures_every_number_of_views_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    arguments = ["--views", "1,3", "--horizon", "2,4", "--steps", "1", "--repeat", "1", "--device", "cpu"]
    arguments += ["--committed", "0"]
    assert bench.main([*arguments, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["devices"]["cpu"]["rows"]
    assert [(row["views"], row["horizon"]) for row in rows] == [(1, 2), (1, 4), (3, 2), (3, 4)]
    assert rows[0]["floor_ms"] < rows[-1]["floor_ms"]


def test_wrong_settings_end_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--steps", "0"]) == 2
    assert "steps is 0" in capsys.readouterr().err
    assert bench.main(["--views", "0"]) == 2
    assert "views is ()" in capsys.readouterr().err
    assert bench.main(["--repeat", "0"]) == 2
    assert "repeat is 0" in capsys.readouterr().err
    assert bench.main(["--horizon", "4,8", "--committed", "4"]) == 2
    assert "committed is 4; allowed is 0 to 3" in capsys.readouterr().err


def options(*words: str) -> argparse.Namespace:
    return bench._arguments(["--threads", str(torch.get_num_threads()), *words])


def told(report: dict[str, Any]) -> list[str]:
    """A table of a line per device and row."""
    return ["head", *(f"{device} {row}" for device, rows in report["devices"].items() for row in rows)]


def test_the_gpu_comes_first_and_every_row_is_told_and_written_when_it_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stops a long measurement has what was measured."""
    path = tmp_path / "new" / "figures.json"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H")

    def measured(device: str) -> Iterator[Any]:
        rows: list[str] = []
        for number in range(2):
            found = json.loads(path.read_text())["devices"]
            assert found.get(device, []) == rows and list(found) == (["cuda", "cpu"][: len(found)])
            rows = [*rows, f"row{number}"]
            yield rows
            assert capsys.readouterr().out.endswith(f"{device} row{number}\n")
        if device == "cpu":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench_report.tell(options("--json", str(path)), measured, told)
    assert json.loads(path.read_text())["devices"] == {"cuda": ["row0", "row1"], "cpu": ["row0", "row1"]}


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured in vain"))
    (tmp_path / "file").write_text("")
    assert bench.main(["--json", str(tmp_path / "file" / "f.json")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_no_more_is_timed_when_time_is_over() -> None:
    assert list(bench.Limit(5, 1e9).turns()) == [0, 1, 2, 3, 4] and list(bench.Limit(5, 1e9).turns(2)) == [0, 1]
    assert list(bench.Limit(5, 0.0).turns()) == [0], "at least once"


def test_it_is_measured_as_it_is_served() -> None:
    """bfloat16 on a GPU, and on a CPU where it multiplies faster and the model is wide."""
    wide = torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
    assert options().dtype == "auto"
    for device, size, dtype in (
        ("cuda", "nano", torch.bfloat16),
        ("cpu", "nano", torch.float32),
        ("cpu", "full", wide),
    ):
        assert served_dtype("auto", torch.device(device), preset(size).width) == dtype


def test_the_processor_has_a_name() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    if not any(line.startswith("model name") for line in lines):
        pytest.skip("this processor has no name")
    assert bench_report.processor() not in ("", platform.machine())


def test_a_fault_of_the_experts_attention_shows_in_the_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the gates of the expert's branches nearly shut it did not: without any attention 98 % of tokens agreed."""
    torch.manual_seed(0)
    model = bench.random_model(preset("nano"), "cpu", torch.float32)
    settings = SamplerSettings.of(model.config, steps=4)
    attend = fast_path._attend
    row = (model, settings, 0, bench.Limit(1, 0.0), {"matmul_gflops": 1.0, "copy_gb_s": 1.0})
    assert bench.measure_steps(*row)["token_agreement"] > 0.99
    monkeypatch.setattr(fast_path, "_attend", lambda q, k, v: attend(q, k, v) * 0.5)
    assert bench.measure_steps(*row)["token_agreement"] < 0.9


def test_quantiles() -> None:
    assert bench_report.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert bench_report.quantile(list(range(101)), 0.99) == 99


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
    assert bench_report.memory_mb("cpu") < 8 * 1024**3 / 1e6
