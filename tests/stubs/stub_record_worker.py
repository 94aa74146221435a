"""Stands in for sim.record_worker. `script` in its specification says per seed what becomes of each attempt."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
spec = json.loads(sys.argv[1])
folder = Path(spec["folder"]).parent


def attempts(seed: int) -> int:
    """How often the seed was tried before, over all workers."""
    with (folder / f"seed-{seed}").open("a+") as file:
        file.seek(0)
        before = len(file.read())
        file.write("x")
    return before


if spec.get("fatal"):
    print(json.dumps({"fatal": "no simulator"}), flush=True)
    sys.exit(1)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    fates = spec["script"].get(str(job["seed"]), ["fine"])
    fate = fates[min(attempts(job["seed"]), len(fates) - 1)]
    if fate == "leave":
        child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True)
        child.stdout.readline()
        (folder / "left").write_text(str(child.pid))
    if fate in ("die", "leave"):
        os._exit(7)
    if fate == "slow":
        time.sleep(0.5)
    error = "bridge refused" if fate == "error" else ""
    said = {**job, "name": str(job["seed"]), "error": error, "domain": os.environ["ROS_DOMAIN_ID"], "pid": os.getpid()}
    print(json.dumps(said), flush=True)
(folder / f"ended-{os.getpid()}").touch()
