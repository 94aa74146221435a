"""What stock LeRobot wrote (`write_theirs.py`) is read by our loader, value by value, and trained on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from e0_policy.lerobot_layout import Layout
from e0_policy.lerobot_source import LeRobotSource
from e0_policy.train import train
from e0_policy.train_config import from_mapping

VIEWS = {"base": "observation.images.front", "wrist": "observation.images.hand"}
COLUMNS = (*range(7), 8)
LAYOUT = {
    "embodiment": "panda",
    "views": VIEWS,
    "state_columns": list(COLUMNS),
    "action_columns": list(COLUMNS),
    "degrees": True,
    "gripper_closed": 0.0,
    "gripper_open": 0.08,
}


def rows(values: np.ndarray) -> np.ndarray:
    """Ours of theirs: rad, and the gripper's opening in [0, 1]."""
    chosen = values[:, COLUMNS].astype(np.float64)
    return np.column_stack([np.deg2rad(chosen[:, :7]), chosen[:, 7] / 0.08])


def check(folder: Path, given: dict[str, np.ndarray]) -> float:
    """Every number and picture; the pictures' mean absolute error in 1/255."""
    source = LeRobotSource(folder, Layout(**{**LAYOUT, "state_columns": COLUMNS, "action_columns": COLUMNS}))
    assert source.views == tuple(VIEWS) and source.period_ns == 50_000_000
    errors = []
    assert len(source.episodes) == given["episode"].max() + 1
    for index, episode in enumerate(source.episodes):
        at = np.flatnonzero(given["episode"] == index)
        assert len(episode) == len(at) and episode.instruction == given["task"][at[0]]
        np.testing.assert_allclose(episode.proprioception, rows(given["observation.state"][at]), rtol=0, atol=1e-6)
        np.testing.assert_allclose(episode.actions, rows(given["action"][at]), rtol=0, atol=1e-6)
        for frame in range(len(episode)):
            for view, image in source.images(index, frame).items():
                distance = np.abs(given[VIEWS[view]].astype(float) - image).mean((1, 2, 3))
                assert distance.argmin() == at[frame], f"{view} of frame {at[frame]} looks like {distance.argmin()}"
                errors.append(distance.min())
    return float(np.mean(errors))


def learn(folder: Path, output: Path) -> float:
    """A few steps of a tiny network; its last loss."""
    sizes = {"image_size": 32, "vision_width": 16, "width": 16, "expert_width": 16, "mlp": 16, "expert_mlp": 16}
    model = {"preset": "nano", "views": list(VIEWS), **sizes, "depth": 1, "heads": 2, "head_dim": 8, "bins": 64}
    steps = {"batch_size": 8, "steps": 5, "warmup_steps": 0, "validation_samples": 8, "augment": False}
    data = [{"folder": str(folder), **LAYOUT}]
    found = train(from_mapping({"model": model, "data": data, "output": str(output), **steps}, "read_theirs.py"))
    return found.loss


def main(folder: Path) -> None:
    """Check both datasets."""
    for name in ("videos", "pictures"):
        given = dict(np.load(folder / f"{name}.npz"))
        error, loss = check(folder / name, given), learn(folder / name, folder / f"run_{name}")
        assert np.isfinite(loss)
        print(
            f"we read {len(given['episode'])} frames with {name} as LeRobot was given them (images within "
            f"{error:.2f}/255 on average) and trained on them (loss {loss:.2f} after 5 steps)"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
