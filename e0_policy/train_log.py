"""Figures of a training run: a JSON line per report, TensorBoard events and lines on the console."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from e0_policy.train_config import TrainConfig
from e0_policy.train_setup import Data, clipped_share
from e0_policy.validation import OpenLoop


class Log:
    """Figures of a run: `metrics.jsonl`, TensorBoard events and lines on the console, from the first process only."""

    def __init__(self, output: Path, config: TrainConfig, first: int, active: bool) -> None:
        self._config, self._active, self.samples_per_s = config, active, 0.0
        self._at, self._time = first, time.monotonic()
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        output.mkdir(parents=True, exist_ok=True)
        self._path = output / "metrics.jsonl"
        lines = self._path.read_text(encoding="utf-8").splitlines() if first and self._path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= first]
        self._path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        (output / "config.json").write_text(json.dumps(config.to_dict(), indent=1), encoding="utf-8")
        self._board = SummaryWriter(str(output / "tensorboard"), purge_step=first + 1)

    def start(self, data: Data, parameters: int) -> None:
        """Say what is trained on what."""
        if self._active:
            clipped = clipped_share(data.dataset)
            print(
                f"{parameters / 1e6:.2f} M parameters; {len(data.dataset)} samples of {data.source.embodiment} to "
                f"train on, {len(data.validation)} held out; {clipped:.2%} of the action values clip",
                flush=True,
            )

    def step(self, step: int, parts: dict[str, float], rate: float, norm: float) -> float:
        """Record a training step; returns its loss."""
        now = time.monotonic()
        seconds = max(now - self._time, 1e-9)
        self.samples_per_s = (step - self._at) * self._config.batch_size / seconds
        left = (self._config.steps - step) * seconds / max(step - self._at, 1)
        self._at, self._time = step, now
        rates = {"learning_rate": rate, "gradient_norm": norm, "samples_per_s": self.samples_per_s}
        self._write(step, "train", {**parts, **rates})
        if self._active:
            figures = "  ".join(f"{name} {value:.4f}" for name, value in parts.items())
            left_text = f"{int(left // 3600)}:{int(left // 60 % 60):02d}:{int(left % 60):02d} left"
            print(
                f"{step}/{self._config.steps}  {figures}  {self.samples_per_s:.0f} samples/s  {left_text}", flush=True
            )
        return parts["loss"]

    def validation(self, step: int, result: OpenLoop) -> None:
        """Record an open-loop validation."""
        values = {name: value for name, value in asdict(result).items() if value is not None}
        self._write(step, "validation", values)
        self._time = time.monotonic()
        if self._active:
            units = {"joint_rad": " rad", "tcp_m": " m"}
            figures = "  ".join(f"{name} {value:.4g}{units.get(name, '')}" for name, value in values.items())
            print(f"{step}/{self._config.steps}  validation: {figures}", flush=True)

    def close(self) -> None:
        """Flush and close the event file."""
        if self._active:
            self._board.close()

    def _write(self, step: int, kind: str, values: dict[str, float]) -> None:
        if not self._active:
            return
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)
