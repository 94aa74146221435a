"""DDP and FSDP over gloo. One torchrun does everything (`two_processes.py`), for its start takes longest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from e0_policy.train import train
from e0_policy.train_state import load_part, newest
from tests.e0_policy.test_train import losses, make_config
from tests.e0_policy.two_processes import SMALL, STOPPED_AFTER

PLAIN = {"view_dropout": 0.5, "batch_size": 4, "micro_batch": 1, "steps": 3, "synthetic_episodes": 4, "save_every": 3}
"""One sample per forward pass: half of the time a process lacks a view that the other one has."""
RUNS = {
    "ddp": {"parallel": "ddp"},
    "stopped_ddp": {"parallel": "ddp"},
    "fsdp": {"parallel": "fsdp"},
    "stopped_fsdp": {"parallel": "fsdp"},
    "bf16": {"parallel": "fsdp", "precision": "bf16", "steps": 1, "warmup_steps": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("two")
    for name, changes in RUNS.items():
        config = make_config(folder / name, **{**PLAIN, **changes})
        (folder / f"{name}.config.json").write_text(json.dumps(config.to_dict()))
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([*command, str(script), str(folder)], capture_output=True, timeout=280, env=environment)
    assert ran.returncode == 0, ran.stderr.decode()[-9000:]
    train(make_config(folder / "alone", **PLAIN))
    return folder


def seen(folder: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"rank_{rank}.json").read_text())
    return found


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_processes_whose_samples_lack_different_views_train_as_one(folder: Path, parallel: str) -> None:
    assert len(losses(folder / "alone")) == PLAIN["steps"]
    for (step, one), (again, two) in zip(losses(folder / "alone"), losses(folder / parallel), strict=True):
        assert step == again and two == pytest.approx(one, rel=2e-5)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_stopped_run_goes_on_with_the_same_bits(folder: Path, parallel: str) -> None:
    straight, again = folder / parallel, folder / f"stopped_{parallel}"
    for rank in (0, 1):
        stop = seen(folder, rank)[f"stopped_{parallel}.config.json"]
        assert stop["reason"].startswith(f"stopped after step {STOPPED_AFTER};")
        assert stop["state"] == f"step_{STOPPED_AFTER:08d}", "no process leaves before the state is whole"
    assert losses(again) == losses(straight) and len(losses(again)) == PLAIN["steps"]
    for part in ("model", "ema", "optimizer"):
        one, two = load_part(newest(straight), part), load_part(newest(again), part)
        assert one and one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def test_gradients_are_summed_in_float32(folder: Path) -> None:
    for rank in (0, 1):
        assert seen(folder, rank)["summed"] == [(1.0 + 5 * SMALL) / 2.0] * 2


def test_sharded_training_in_bf16_accumulates(folder: Path) -> None:
    ((_, whole),) = losses(folder / "bf16")
    assert whole == pytest.approx(losses(folder / "alone")[0][1], rel=0.02)


def test_only_the_process_that_writes_holds_the_whole_state(folder: Path) -> None:
    writer, other = (seen(folder, rank)["gathered"] for rank in (0, 1))
    assert len(writer) == len(other) == 7 and min(writer) > 100 and max(other) == 0
