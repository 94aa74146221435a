"""Every kind of LeRobot's policies with random weights in the harness: `make lerobot-policies`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("E0_LEROBOT_PYTHON", ROOT / ".venv-lerobot" / "bin" / "python"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason=f"no {PYTHON}: make lerobot-venv (several GB)"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[dict[str, object], str]]:
    """Makes a policy of a kind and evaluates it in the direct loop; gives figures and the rows' digests."""
    out = tmp_path_factory.mktemp("lerobot")
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = out / "python"
    server.write_text(f'#!/bin/sh\nshift 2\nexec {PYTHON} {ROOT}/tests/lerobot/small_server.py "$@"\n')
    server.chmod(0o755)

    def evaluate(kind: str) -> tuple[dict[str, object], str]:
        from sim.eval_rollouts import read_run
        from sim.eval_run import Plan, evaluate
        from sim.evaluation import EvalConfig

        words = [str(PYTHON), str(ROOT / "tests" / "lerobot" / "small_policies.py"), str(out), kind]
        made = subprocess.run(words, env=offline, capture_output=True, text=True, timeout=300, check=False)
        if kind in ("pi0", "pi05") and "incorrect transformer version" in made.stderr:
            pytest.skip(f"LeRobot's {kind} needs transformers as openpi patches it; this one is not")
        assert made.returncode == 0, made.stderr[-2000:]
        words = [str(PYTHON), str(ROOT / "tests" / "lerobot" / "compare_rows.py"), str(out), kind]
        compared = subprocess.run(words, env=offline, capture_output=True, text=True, timeout=300, check=False)
        assert compared.stdout.endswith("difference 0.0\n"), compared.stdout + compared.stderr[-2000:]
        settings = f"{{python: {server}, tokenizer: {out / 'tokenizer'}}}"
        where = out / f"eval-{len(list(out.glob('eval-*')))}"
        config = EvalConfig("fr3_plant", "direct", str(out / kind), "cpu", settings, max_steps=30)
        told = evaluate(config, Plan(("Reach-v0",), range(2)), where)
        print(f"{kind}: {told['latency_ms_p50']:.0f} ms a plan, {made.stdout.strip().splitlines()[-1]}")
        return told, ",".join(rollout.digest for rollout in read_run(where)[1].values())

    return evaluate


@pytest.mark.parametrize("kind", ["act", "diffusion", "smolvla", "pi0", "pi05"])
def test_a_policy_with_random_weights_moves_the_arm_and_the_same_seed_gives_the_same_bits(
    kind: str, run: Callable[..., tuple[dict[str, object], str]]
) -> None:
    told, digests = run(kind)
    assert (told["errors"], told["episodes"], told["refused_chunks"]) == (0, 2, 0)
    assert told["jerk_rad_s3_median"] > 0  # type: ignore[operator]
    assert run(kind)[1] == digests


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-s", "-q"]))
