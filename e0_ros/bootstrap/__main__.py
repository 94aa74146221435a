"""Make `.venv`: pinned packages, e0_msgs, the project itself, a Vulkan driver. Run again at any time.

python3 -m e0_ros.bootstrap --extras sim,train,dev
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from e0_ros import environment
from e0_ros.bootstrap import machine, plan
from e0_ros.bootstrap.progress import StageError
from e0_ros.bootstrap.stages import Setup

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    """Run set-up; 0 if everything is in place, 1 if something is missing, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python3 -m e0_ros.bootstrap", description=__doc__.split("\n")[0])
    parser.add_argument("--extras", default="sim,train,dev", help="extras of setup.cfg, comma-separated")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where to (default: .venv)")
    parser.add_argument("--python", help="interpreter to make it with (default: this one, or another that fits)")
    options = parser.parse_args(argv)
    started = time.monotonic()
    state = ROOT / ".setup" / ("" if options.venv == ROOT / ".venv" else options.venv.resolve().name)
    try:
        ros = environment.detect(prefix="")
        extras = plan.wished_extras(options.extras, plan.Stamps(state / "stamps.json"), wheels=ros.kind != "install")
        setup = Setup(ROOT, options.venv.resolve(), state, ros, extras)
        if options.python:
            setup.require_version(options.python)
        if setup.is_complete():
            print(f"set-up: nothing to do ({setup.venv} is up to date)")
            return 0
        with plan.only_one(state / "lock"):
            setup.run(options.python or sys.executable)
    except machine.Missing as missing:
        print(f"set-up: {missing}", file=sys.stderr)
    except (StageError, ValueError) as error:
        print(f"set-up: {error}\n  full log: {state / 'log'}\n  {hint(state / 'log')}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nset-up: interrupted; run it again to go on from here", file=sys.stderr)
        return 130
    else:
        print(f"set-up: ready in {time.monotonic() - started:.0f} s")
        return 0
    return 1


def hint(log: Path) -> str:
    """The likely cure, from what the log says."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    if "No space left" in text:
        return "cure: free some disk space, then run it again"
    unreachable = ("NewConnectionError", "Temporary failure in name", "ConnectTimeout", "ProxyError")
    if any(sign in text for sign in unreachable):
        return "cure: the package index cannot be reached; check the network or set HTTPS_PROXY, then run it again"
    if "No matching distribution" in text:
        return "cure: the package index lacks a pinned version; check PIP_INDEX_URL and PIP_EXTRA_INDEX_URL"
    return "cure: run it again; if it fails at the same place, `make clean-setup setup`"


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
