"""Figures of a training run, whatever it trains: JSON lines, TensorBoard events and lines on the console."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from e0_policy.train_config import TrainConfig
from e0_policy.train_state import TrainStateError


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
        before = self._path.read_text(encoding="utf-8", errors="replace") if first and self._path.exists() else ""
        kept = [line for line, figures in _whole(self._path, before.splitlines()) if figures["step"] <= first]
        self._path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        (output / "config.json").write_text(json.dumps(config.to_dict(), indent=1), encoding="utf-8")
        self._board = SummaryWriter(str(output / "tensorboard"), purge_step=first + 1)

    def say(self, text: str) -> None:
        """A line on the console."""
        if self._active:
            print(text, flush=True)

    def step(self, step: int, parts: dict[str, float], rate: float, norm: float) -> float:
        """Record a training step; returns its loss."""
        now = time.monotonic()
        seconds = max(now - self._time, 1e-9)
        self.samples_per_s = (step - self._at) * self._config.batch_size / seconds
        left = (self._config.steps - step) * seconds / max(step - self._at, 1)
        self._at, self._time = step, now
        rates = {"learning_rate": rate, "gradient_norm": norm, "samples_per_s": self.samples_per_s}
        self._write(step, "train", {**parts, **rates})
        figures = "  ".join(f"{name} {value:.4f}" for name, value in parts.items())
        left_text = f"{int(left // 3600)}:{int(left // 60 % 60):02d}:{int(left % 60):02d} left"
        self.say(f"{step}/{self._config.steps}  {figures}  {self.samples_per_s:.0f} samples/s  {left_text}")
        return parts["loss"]

    def validation(self, step: int, values: Mapping[str, float], text: str) -> None:
        """Record a validation; its time does not count as training."""
        self._write(step, "validation", values)
        self._time = time.monotonic()
        self.say(f"{step}/{self._config.steps}  validation: {text}")

    def close(self) -> None:
        """Flush and close the event file."""
        if self._active:
            self._board.close()

    def _write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        if not self._active:
            return
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)


def _whole(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines with what they say, without a last one that a kill or a loss of power tore while it was written.

    Raises:
        TrainStateError: another line is damaged.

    """
    for number, line in enumerate(lines, 1):
        try:
            yield line, json.loads(line)
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise TrainStateError(f"{path}: line {number} is damaged ({error}); delete it to go on") from None
