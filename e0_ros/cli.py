"""`e0`: one verb per job.

Every verb explains itself with `--help`, writes the figures it prints with `--json FILE`, and ends with 0 (done),
1 (failed) or 2 (wrong arguments).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from e0_ros.config import ConfigError, closest
from e0_ros.environment import calm_matrices

VERBS = {
    "launch": ("e0_ros.launch_command:main", "run a graph: e0 launch sim simulator:=fr3_plant"),
    "demo": ("sim.demo:main", "pick cubes in a simulator, from bridge to recorder: e0 demo --episodes 3"),
    "record": ("sim.record_command:main", "record takes: e0 record --task PickCube-v1 --seeds 0:20 --out bags"),
    "collect": ("sim.collect:main", "demonstrations without ROS: e0 collect --task PickCube-v1 --out data/pick"),
    "convert": ("e0_ros.convert:main", "bags to a LeRobotDataset v3.0: e0 convert bags --out datasets/pick"),
    "import": ("sim.import_command:main", "ManiSkill's and LIBERO's HDF5 files to a dataset: e0 import FILE --out DIR"),
    "episode": ("e0_ros.episode_report:main", "video and plot of a bag: e0 episode bags/<episode>"),
    "inspect": ("e0_ros.inspect_command:main", "bags and datasets at a glance: e0 inspect bags --html report.html"),
    "bag check": ("e0_ros.bag_command:check", "every checksum and count of bags: e0 bag check bags"),
    "bag repair": ("e0_ros.bag_command:repair", "what is whole of a broken bag: e0 bag repair bags/<episode>.partial"),
    "bench": ("e0_ros.bench.command:main", "measure transport, timing and throughput: e0 bench --seconds 10"),
    "bench fuzz": ("e0_ros.bench.fuzz:main", "hostile chunks against the limits: e0 bench fuzz --chunks 100000"),
    "bench handover": (
        "sim.handover_command:main",
        "hand-over strategies against latency: e0 bench handover --out runs/handover",
    ),
    "bench eval": ("sim.eval_bench:main", "rollouts per hour: e0 bench eval --checkpoint config/checkpoint/pick_push"),
    "bench policy": ("e0_policy.bench:main", "latency of a chunk: e0 bench policy --size nano"),
    "bench loader": ("e0_policy.loader_bench:main", "frames per second of a dataset: e0 bench loader --data DIR"),
    "bench train": ("e0_policy.bench_train:main", "time of a training step: e0 bench train --size nano"),
    "bench steps": ("e0_policy.steps_report:main", "agreement and error against N: e0 bench steps --checkpoint DIR"),
    "scenes": ("sim.scenes:main", "random scenes with labels, for pretraining: e0 scenes --out data/scenes"),
    "pretrain": ("e0_policy.pretrain:main", "teach an encoder where things are: e0 pretrain --config FILE"),
    "train": ("e0_policy.train:main", "train an E0 policy: e0 train --config config/train/synthetic.yaml"),
    "eval": ("sim.eval:main", "success of a policy in a simulator: e0 eval --task PickCube-v1 --seeds 0:20 --direct"),
    "replay": (
        "e0_ros.replay_command:main",
        "a policy beside a recorded bag: e0 replay --shadow BAG --checkpoint DIR",
    ),
    "trials": (
        "sim.trials:main",
        "policies on the real bench, blind: e0 trials plan --policy ours=DIR --out trials/monday",
    ),
    "compare": ("sim.compare:main", "two evaluations pair by pair, with a page: e0 compare runs/a runs/b"),
    "doctor": ("e0_ros.doctor.command:main", "what is wrong with this machine, and the cure: e0 doctor --measure"),
    "ablate": (
        "sim.ablation_command:main",
        "variants trained and evaluated alike: e0 ablate --suite heads --out runs/heads",
    ),
    "estop": ("e0_ros.estop_command:main", "stop the arm by any key, or by this terminal's end: e0 estop"),
    "calibrate latency": (
        "e0_ros.calibrate_command:latency",
        "how late images and the arm are: e0 calibrate latency --out bench.yaml",
    ),
    "calibrate camera": (
        "e0_ros.calibrate_command:camera",
        "where a camera is: e0 calibrate camera --bag BAG --view wrist --parent flange",
    ),
    "calibrate view": (
        "e0_ros.calibrate_command:view",
        "whether a camera has moved: e0 calibrate view --reference BAG --out overlays",
    ),
    "calibrate board": ("e0_ros.calibrate_command:board", "the board to print: e0 calibrate board --out board.svg"),
    "gello calibrate": (
        "e0_ros.gello_command:calibrate",
        "a leader arm's file: e0 gello calibrate --out my_gello.yaml",
    ),
    "gello show": ("e0_ros.gello_command:show", "its live joints: e0 gello show --calibration my_gello.yaml"),
    "gello baud": ("e0_ros.gello_command:baud", "another baud rate for its servos: e0 gello baud --to 1000000"),
    "gello fake": ("sim.fake_gello:main", "a leader arm without the hardware: e0 gello fake --link /tmp/gello"),
    "camera fake": ("sim.bridge.camera:command", "cameras without the hardware: e0 camera fake --drop-share 0 0.2"),
    "env": ("e0_ros.env_command:main", "which ROS 2, Python and versions this is: e0 env"),
}
"""Verb (one word, or two): where its `main(argv) -> int` is, and a line with an example. Imported only when used."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb."""
    calm_matrices()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    length = 2 if " ".join(words[:2]) in VERBS else 1
    verb, rest = " ".join(words[:length]), words[length:]
    if verb in ("-V", "--version"):
        from e0_ros.env_command import version

        print(version())
        return 0
    if verb not in VERBS:
        print(f"e0: no verb {verb!r}{closest(verb, VERBS)}", file=sys.stderr)
        return 2
    module, function = VERBS[verb][0].split(":")
    try:
        run = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        print(f"e0 {verb}: {error.name} is not installed here{_cure(error.name or '')}", file=sys.stderr)
        return 1
    try:
        return int(run(rest) or 0)
    except ConfigError as error:
        print(f"e0 {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def usage() -> str:
    """The verbs with an example each."""
    lines = ["usage: e0 VERB ...   (e0 VERB --help)", ""]
    return "\n".join([*lines, *(f"  {verb:<19}{text}" for verb, (_, text) in VERBS.items())])


def _cure(module: str) -> str:
    if module.split(".")[0] in ("e0_ros", "sim", "e0_policy"):
        return "; this version of the project does not have it"
    return "; `make setup` installs everything"


if __name__ == "__main__":
    sys.exit(main())
