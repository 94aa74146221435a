"""A process that behaves as its parameters say, for the launcher's tests. Needs no ROS."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from e0_ros.config import check, from_mapping, setting


@dataclass(frozen=True)
class StubConfig:
    """What the stub does."""

    says: str = setting("", "printed at start")
    exit_after_s: float = setting(-1.0, "time until it ends by itself; negative: never", unit="s")
    exit_status: int = setting(0, "status that it ends with")
    deaf: bool = setting(False, "ignore SIGINT and SIGTERM")
    offspring: bool = setting(False, "start a process of its own and leave it behind")
    rate_hz: float = setting(1.0, "a setting with bounds", unit="Hz", low=0.5, high=10.0)

    def __post_init__(self) -> None:
        check(self)


def main() -> int:
    """Run until told to end."""
    file = Path(sys.argv[sys.argv.index("--params-file") + 1])
    parameters = yaml.safe_load(file.read_text())["/**"]["ros__parameters"]
    parameters.pop("use_sim_time")
    config = from_mapping(StubConfig, parameters, "stub")
    if config.deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if config.offspring:
        print("offspring", subprocess.Popen(["sleep", "600"]).pid, flush=True)
    print(config.says, flush=True)
    try:
        time.sleep(config.exit_after_s if config.exit_after_s >= 0 else 600.0)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        return 0
    return config.exit_status


if __name__ == "__main__":
    sys.exit(main())
