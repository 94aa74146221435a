"""What runs of training have in common, whatever they train: how they are started, resumed, timed and stopped."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError

from e0_policy.files import write_json
from e0_policy.train_config import TrainConfig, TrainConfigError, load_config, read_yaml
from e0_policy.train_state import Saved, TrainStateError, newest, states

FREE_ON_RESUME = (
    "output",
    "device",
    "workers",
    "decode",
    "cache_dir",
    "log_every",
    "validate_every",
    "save_every",
    "keep",
    "learning_rate",  # these three are the way out where the gradient is not finite
    "final_learning_rate",
    "clip_norm",
)
"""Settings that may differ between a run and its resumption."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class RunDone(TrainStateError):
    """There is nothing to go on with: the run is at its last step."""


class Interrupted(Exception):
    """Stopped by SIGTERM or SIGINT, with the state saved."""


def run_command(
    name: str, what: str, example: str, start: Callable[[TrainConfig, bool], Any], argv: Sequence[str] | None
) -> int:
    """A command that trains: 0 done, 1 training or a disk failed, 2 wrong input, 130 stopped by a signal, state saved.

    `start(config, resume)` returns the figures for `--json`, None in a process that writes nothing.
    """
    parser = argparse.ArgumentParser(prog=name, description=what, epilog=f"Example: {example}")
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see config/train/")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--resume", action="store_true", help="go on from the newest state below the output folder")
    ways.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="for scripts: start, go on if there is a state, do nothing if the run is done",
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="change settings, as steps=500 model.depth=2"
    )
    parser.add_argument("--json", type=Path, help="write the final figures to this file")
    arguments = parser.parse_args(argv)
    try:
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--json {arguments.json}: its folder cannot be made ({error.strerror}); give another file")
    try:
        config = load_config(arguments.config, dict(change(text) for text in arguments.set))
        figures = start(config, bool(arguments.resume or (arguments.go_on and states(Path(config.output)))))
    except RunDone as done:
        print(f"{name}: {done}", file=sys.stderr)
        return 0 if arguments.go_on else 2
    except (ValueError, TrainingError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
    except (OSError, SafetensorError) as error:
        print(f"{name}: {error}; states that were saved are whole: mend this and use --continue", file=sys.stderr)
        return 1
    except Interrupted as stopped:
        print(f"{name}: {stopped}", file=sys.stderr)
        return 130
    if arguments.json and figures is not None:
        write_json(arguments.json, figures)
    return 0


@dataclass(frozen=True)
class Turn:
    """A step, and what is due when it is done; the last one has everything due."""

    step: int
    last: bool
    logs: bool
    validates: bool
    saves: bool

    @property
    def done(self) -> int:
        """Steps that are done then."""
        return self.step + 1


def turns(config: TrainConfig, first: int) -> Iterator[Turn]:
    """The steps of a run from `first` on."""
    for step in range(first, config.steps):
        last = step + 1 == config.steps
        every = config.log_every, config.validate_every, config.save_every
        yield Turn(step, last, *(last or (step + 1) % steps == 0 for steps in every))


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
    """A function that tells whether SIGTERM or SIGINT has come; a second SIGINT is not caught.

    A second SIGTERM is: a scheduler sends one to every process, and torchrun passes on its own.
    """
    stopped = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        if number == signal.SIGINT:
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
    try:
        return name, read_yaml(value)
    except yaml.YAMLError as error:
        raise TrainConfigError(f"--set {text}: not valid YAML: {error}") from None
