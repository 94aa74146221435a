"""Prints how far the rows of `e0_policy.lerobot_server` are from LeRobot's own `select_action`: it should be 0.

.venv-lerobot/bin/python tests/lerobot/compare_rows.py FOLDER KIND    # of small_policies.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from small_policies import PX, VIEWS, cut_down

from e0_policy.lerobot_server import LeRobotPolicy

SEED = 7


def main() -> None:
    """Compare one kind on random observations, with the same noise."""
    folder, kind = Path(sys.argv[1]).resolve(), sys.argv[2]
    cut_down()
    names = {"tokenizer": str(folder / "tokenizer")}
    names |= {"vlm_model_name": names["tokenizer"]} if kind == "smolvla" else {}
    server, chance = LeRobotPolicy(folder / kind, "cpu", names), np.random.default_rng(0)
    policy = server._policy

    def observation() -> dict[str, Any]:
        images = {f"observation.images.{v}": chance.integers(0, 256, (PX, PX, 3), dtype=np.uint8) for v in VIEWS}
        return {**images, "observation.state": chance.normal(size=8).astype(np.float32)}

    def batch(seen: dict[str, Any]) -> Any:
        tensors = {k: torch.from_numpy(v) for k, v in seen.items()}
        images = {k: v.permute(2, 0, 1).float() / 255 if v.ndim == 3 else v for k, v in tensors.items()}
        return server._before({**images, "task": "pick"})

    before, present = observation(), observation()
    looks_back = policy.config.n_obs_steps > 1
    seen = {k: np.stack([before[k], present[k]]) for k in present} if looks_back else present
    ours = server.infer({**seen, "task": "pick", "e0/seed": SEED})["actions"]
    policy.reset()
    with torch.inference_mode():
        if looks_back:
            policy.select_action(batch(before))
            policy._queues["action"].clear()
        torch.manual_seed(SEED)
        rows = [server._after(policy.select_action(batch(present)))[0] for _ in range(policy.config.n_action_steps)]
    print(f"difference {np.abs(ours[: len(rows)] - torch.stack(rows).numpy()).max()}")


if __name__ == "__main__":
    main()
