"""Arguments of `e0 eval`, and the small languages of some of them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from e0_ros.config import ConfigError
from e0_ros.core.policy_config import DOUBT_NATS
from sim.camera_shift import REPORTED
from sim.scripted import CONTROLS

DESCRIPTION = """\
How often a policy succeeds in a simulator: task x seeds, with a Wilson interval, controls and a report.

modes
  (default)        over the ROS graph in lock-step: the same seed gives the same bits, however slow the machine
  --mode realtime  over the ROS graph in real time: latency counts
  --direct         the graph's own sync, policy and executor cores in one process: the outcomes of lock-step, faster
  --raw            env.step(row) with the benchmark's own joint controller, no executor; its official protocol

What a rollout is given is what the checkpoint was trained on (views, size); without --checkpoint the privileged
scripted expert plans. A checkpoint is also run with black pictures and with another task's instruction (--controls):
where it succeeds as often, it does not look, or does not listen.

--camera-shift 0,5,10,15 moves the fixed cameras by so many degrees on a sphere about the point that they look at,
another way for each seed and view: an evaluation per angle, each in a folder of its own, and a page that compares them
with the first (as `e0 compare` does for any evaluations). With --camera-poses nominal
cameras still say that they stand where they did (nobody noticed); with true they tell the new place (calibrated again),
and a policy that was trained with the relative spherical embedding is told it too.

Every rollout is on disk before the next begins. After a kill the same command with the printed --out goes on; rollouts
of another configuration there are refused with the difference. An exception is an ERROR, never a failure of the policy,
and is run again then.
"""
EXAMPLES = """\
settings of inference (--set) of E0: steps (N), samples, alpha, noise (fixed, redraw), sampling (argmax, sampled),
  decode (token, mean, expectation), seed, execution_horizon, horizon, engine (fast, eager),
  dtype (auto, float32, bfloat16), threads
settings of policies of others: mapping (a YAML file of settings, see config/policies), views, state, action, ...,
  period_ms, execution_horizon, timeout_s, seed, python (LeRobot's interpreter; default: .venv-lerobot)

examples
  e0 eval --task PickCube-v1 --seeds 0:20                                      # the expert, over the graph
  e0 eval --task PushCube-v1 --seeds 0:20 --control ee_pose                    # its plans as poses of the tool
  e0 eval --suite libero_spatial --seeds 0:50 --checkpoint runs/libero_spatial/checkpoint   # rows of OSC_POSE
  e0 eval --suite maniskill5 --seeds 1000:1020 --direct --checkpoint checkpoints/small
  e0 eval --task PickCube-v1 --task PushCube-v1 --seeds 1000:1100 --direct --workers 2 --checkpoint checkpoints/nano
  e0 eval --task PickCube-v1 --seeds 1000:1100 --checkpoint checkpoints/nano --set steps=4 --set execution_horizon=4
  e0 eval --task PickCube-v1 --seeds 1000:1100 --raw --max-steps 50 --checkpoint checkpoints/nano --json raw.json
  e0 eval --task PushCube-v1 --seeds 0:100 --direct --checkpoint checkpoints/nano --camera-shift 0,5,10,15
  e0 eval --task PickCube-v1 --seeds 0:100 --direct --checkpoint outputs/act/checkpoints/last/pretrained_model
  e0 eval --task PickCube-v1 --seeds 0:100 --direct --checkpoint ws://127.0.0.1:8000 --set name=pi05_pick \
      --set mapping=config/policies/openpi.yaml

exit status: 0 every rollout ran, 1 some ended with an error, 2 wrong arguments
"""


def seed_range(text: str) -> range:
    """Seeds of `A:B`, B excluded.

    Raises:
        ConfigError: another form, or no seed at all.

    """
    first, colon, end = text.partition(":")
    if not (colon and first.isdigit() and end.isdigit() and int(first) < int(end)):
        raise ConfigError(f"--seeds is {text!r}; A:B with A < B is needed, e.g. 1000:1100 for a hundred from 1000 on")
    return range(int(first), int(end))


def angles_of(words: Sequence[str]) -> list[float]:
    """Angles of lists like `0,5,10` [deg], each once; 0 alone if there are none.

    Raises:
        ConfigError: not a number.

    """
    angles = []
    for text in ",".join(words).split(",") if words else ["0"]:
        try:
            angles.append(float(text))
        except ValueError:
            raise ConfigError(f"--camera-shift {text!r}: degrees are needed, e.g. 0,5,10,15") from None
    if not all(map(math.isfinite, angles)):
        raise ConfigError(f"--camera-shift {','.join(words)}: finite degrees are needed, e.g. 0,5,10,15")
    return list(dict.fromkeys(angles))


def parser() -> argparse.ArgumentParser:
    """Arguments of `e0 eval`."""
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="e0 eval", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    p.add_argument("--task", action="append", default=[], help="task; may be given several times")
    p.add_argument("--suite", default="", help="every task of a suite, beside the paper's rows")
    p.add_argument("--list-suites", action="store_true", help="suites, what each needs and whether it is here")
    p.add_argument("--seeds", default="0:20", help="A:B: a rollout per seed from A on, B excluded (default: 0:20)")
    p.add_argument(
        "--checkpoint",
        default="",
        help="folder of a checkpoint (E0's, or LeRobot's "
        "pretrained_model), or ws://HOST:PORT of an openpi server (default: the scripted expert)",
    )
    how = p.add_mutually_exclusive_group()
    how.add_argument("--mode", choices=("lockstep", "realtime"), default="lockstep", help="over the ROS graph")
    how.add_argument("--direct", action="store_const", const="direct", dest="mode", help="in one process")
    how.add_argument("--raw", action="store_const", const="raw", dest="mode", help="the benchmark's own protocol")
    p.add_argument("--max-steps", type=int, default=0, help="control steps of 50 ms per rollout (default: the task's)")
    p.add_argument("--workers", type=int, default=1, help="processes of --direct and --raw (default: 1)")
    p.add_argument(
        "--ray",
        default="",
        metavar="ADDRESS",
        help="run --direct and --raw on this Ray cluster (or 'local'), "
        "one CPU a worker (default: all CPUs); --out must be on every machine",
    )
    p.add_argument("--controls", type=int, default=20, help="seeds of each control; 0: none (default: 20)")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of inference, see below")
    p.add_argument(
        "--doubt", type=float, default=DOUBT_NATS, metavar="NATS", help="plan anew at the first row of more entropy"
    )
    p.add_argument("--device", default="auto", help="torch device (default: a GPU if there is one)")
    p.add_argument("--videos", type=int, default=2, help="successes and failures to show per task (default: 2)")
    p.add_argument("--views", default="", help="camera views, comma-separated (default: the checkpoint's)")
    p.add_argument("--size", type=int, default=0, help="side of the views in px (default: the checkpoint's)")
    p.add_argument("--camera-shift", action="append", default=[], metavar="DEG,...", help="move the fixed cameras")
    p.add_argument(
        "--camera-poses", choices=REPORTED, default="nominal", help="where moved cameras say that they stand"
    )
    p.add_argument("--control", choices=CONTROLS, default="joint_position", help="what the expert's plans are made of")
    p.add_argument("--simulator", default="maniskill", help="maniskill, libero, or fr3_plant (no physics)")
    p.add_argument("--sim-python", default="", metavar="PYTHON", help="over the graph: the simulator's interpreter")
    p.add_argument("--keep-bags", action="store_true", help="over the graph: keep a bag of every rollout")
    p.add_argument(
        "--out", type=Path, help="folder of the evaluation (default: runs/eval-<time>); one there is continued"
    )
    p.add_argument("--json", type=Path, help="write the figures to this file")
    return p
