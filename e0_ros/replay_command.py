"""`e0 replay --shadow BAG --checkpoint DIR`: what a policy would have planned, beside what was done; needs no ROS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from e0_policy.files import write_json
from e0_ros.config import ConfigError
from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.dataset_bag import describe_bag
from e0_ros.core.shadow import Errors, Shadow, ShadowError, recorded_shadow, run_shadow
from e0_ros.core.shadow_plot import shadow_plot
from e0_ros.policies import load_checkpoint, read_card, settings_of

SHOWN = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Print the open-loop error by how far ahead, and write the plot.

    1: bag and policy do not fit, or the policy does not answer; 2: a wrong checkpoint or setting.
    """
    parser = argparse.ArgumentParser(
        prog="e0 replay",
        description="The open-loop error of a policy on a recorded episode: nothing moves.",
        epilog="example: e0 replay --shadow bags/20260101-120000 --checkpoint runs/pick/checkpoint --action teleop",
    )
    parser.add_argument("--shadow", type=Path, required=True, metavar="BAG", help="the recorded episode")
    parser.add_argument("--checkpoint", default="", metavar="DIR",
                        help="the policy, E0's or as in e0 eval; else the one that watched the take")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="a setting of the policy's inference, as in e0 eval")  # fmt: skip
    parser.add_argument("--action", choices=("commanded", "teleop", "measured_next"), default="commanded",
                        help="what was done, as in e0 convert (default: commanded)")  # fmt: skip
    parser.add_argument("--every", type=int, default=0, help="frames between plans (default: its execution horizon)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="SVG to write (default: <bag>-shadow.svg beside it)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args(argv)
    try:
        shadow, name = _shadow(options)
    except (BagReadError, ShadowError, RuntimeError) as error:
        print(f"e0 replay: {error}", file=sys.stderr)
        return 1
    except (ValueError, yaml.YAMLError) as error:
        print(f"e0 replay: {error}", file=sys.stderr)
        return 2
    errors = shadow.errors()
    print(f"{options.shadow.name}: {len(shadow.stamps_ns)} plans beside what was done ({options.action})")
    print("\n".join(table(errors)))
    bag = options.shadow.resolve().name.removesuffix(".mcap")
    path = options.plot or options.shadow.resolve().parent / f"{bag}-shadow.svg"
    path.write_text(shadow_plot(shadow), encoding="utf-8")
    print(path)
    if options.json:
        figures = {key: [float(v) for v in values] for key, values in asdict(errors).items()}
        write_json(options.json, {"bag": bag, "checkpoint": name, "action": options.action, **figures})
    return 0


def _shadow(options: argparse.Namespace) -> tuple[Shadow, str]:
    """Plans beside what was done, and whose they are."""
    bag = Bag(options.shadow)
    if options.set and not options.checkpoint:
        raise ConfigError("--set is a policy's: it needs --checkpoint")
    if not options.checkpoint:
        return recorded_shadow(bag, options.action), "as recorded"
    settings = yaml.safe_load(settings_of(options.set))
    card = read_card(options.checkpoint, settings)
    with ExitStack() as stack:
        policy = load_checkpoint(options.checkpoint, settings=settings, embodiment=describe_bag(bag).embodiment)
        stack.callback(getattr(policy, "close", lambda: None))
        return run_shadow(bag, policy, options.action, card.views, max(options.every, 0)), card.identifier


def table(errors: Errors) -> list[str]:
    """Some rows of the plans, from the first to the last."""
    head = f"{'ahead':>8}  {'mean':>10}  {'worst p95':>10}  {'staying put':>11}  {'gripper':>7}  plans"
    e, shown = errors, np.unique(np.linspace(0, len(errors.ahead_ms) - 1, SHOWN).astype(int))
    return [
        head,
        *(
            f"{e.ahead_ms[i]:5.0f} ms  {e.mean_rad[i]:6.4f} rad  {e.p95_rad[i]:6.4f} rad  "
            f"{e.still_rad[i]:7.4f} rad  {e.opening[i]:7.3f}  {e.plans[i]:5.0f}"
            for i in shown
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
