"""A policy of others in the harness: an openpi server evaluated over the ROS graph and without it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgpack", reason="msgpack is not installed (extra [remote])")
pytest.importorskip("websockets", reason="websockets is not installed (extra [remote])")

from sim.eval_rollouts import read_run
from sim.eval_run import Plan, evaluate
from sim.evaluation import EvalConfig
from tests.e0_policy.policy_servers import serving

pytestmark = pytest.mark.ros


def infer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Onwards from the joints seen, by how bright the picture is."""
    rows = np.tile(request["observation/state"].astype(np.float64), (10, 1))
    rows[:, :7] += np.linspace(0.0, 2e-4 * request["observation/image"].mean(), 10)[:, None]
    return {"actions": rows}


def test_an_openpi_server_gives_the_same_bits_in_lock_step_and_directly(tmp_path: Path) -> None:
    with serving(infer) as address:
        settings = "{name: test, execution_horizon: 5, image_px: 32}"
        runs = []
        for mode in ("lockstep", "direct"):
            config = EvalConfig("fr3_plant", mode, address, "cpu", settings, size=32, max_steps=20)
            told = evaluate(config, Plan(("Reach-v0",), range(1)), tmp_path / mode)
            assert (told["errors"], told["refused_chunks"], told["violations"]) == (0, 0, 0)
            assert told["configuration"]["checkpoint"].startswith("openpi server test/")
            runs.append(read_run(tmp_path / mode)[1])
    for a, b in zip(runs[0].values(), runs[1].values(), strict=True):
        assert (a.outcome, a.steps, a.digest) == (b.outcome, b.steps, b.digest) and a.jerk_rad_s3 > 0
