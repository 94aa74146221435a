"""What runs of training have in common, whatever they train: how they resume, stop, compute and are changed."""

from __future__ import annotations

import argparse
import json
import signal
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import yaml

from e0_policy.train_config import TrainConfig, TrainConfigError
from e0_policy.train_state import Saved, TrainStateError, newest, states

FREE_ON_RESUME = (
    "output",
    "device",
    "workers",
    "decode",
    "cache_dir",
    "log_every",
    "validate_every",
    "validation_samples",
    "save_every",
    "keep",
)
"""Settings that may differ between a run and its resumption."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class RunDone(TrainStateError):
    """There is nothing to go on with: the run is at its last step."""


class Interrupted(Exception):
    """Stopped by SIGTERM or SIGINT, with the state saved."""


def add_starting(parser: argparse.ArgumentParser) -> None:
    """The ways to start a run: anew unless one is chosen."""
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--resume", action="store_true", help="go on from the newest state below the output folder")
    ways.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="for scripts: start, go on if there is a state, do nothing if the run is done",
    )


def resumes(arguments: argparse.Namespace, config: TrainConfig) -> bool:
    """Whether the chosen way means to go on from a state."""
    return bool(arguments.resume or (arguments.go_on and states(Path(config.output))))


def saved_state(config: TrainConfig, resume: bool) -> Saved | None:
    """The state to go on from, None for a new run.

    Raises:
        TrainStateError: nothing to resume, something that would be overwritten, or another run.
        RunDone: its last step is done.

    """
    output = Path(config.output)
    if not resume:
        if states(output):
            raise TrainStateError(f"{output} holds the state of a run; go on with --resume, or give another output")
        return None
    saved = newest(output)
    before, now = saved.meta["config"], json.loads(json.dumps(config.to_dict()))
    for name in now:
        if name not in FREE_ON_RESUME and before.get(name) != now[name]:
            raise TrainStateError(f"{name} is {now[name]!r}; the run to resume has {before.get(name)!r}")
    if saved.step >= config.steps:
        raise RunDone(f"{output} is done: {saved.step} of {config.steps} steps")
    return saved


def stop_signal() -> Any:
    """A function that tells whether SIGTERM or SIGINT has come; a second SIGINT is not caught."""
    stopped = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        signal.signal(number, signal.SIG_DFL)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
    except ValueError:
        pass  # not in the main thread: whoever owns it handles signals
    return lambda: bool(stopped)


def precision(config: TrainConfig, device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 where the configuration asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def change(text: str) -> tuple[str, Any]:
    """A setting of the command line, `NAME=VALUE` with the value in YAML.

    Raises:
        TrainConfigError: another form.

    """
    name, equals, value = text.partition("=")
    if not equals:
        raise TrainConfigError(f"--set {text}: NAME=VALUE is needed")
    return name, yaml.safe_load(value)
