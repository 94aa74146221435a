"""`e0 import`: demonstrations without bags to a LeRobotDataset v3.0, as `e0 convert` writes it."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from e0_policy.dataset import DatasetError, PackedSource
from e0_policy.embodiment import load_embodiment
from e0_policy.files import sha256, sync, write_json
from e0_policy.types import Observation
from e0_ros.config import ConfigError, to_mapping
from e0_ros.core.dataset_config import ConvertConfig
from e0_ros.core.dataset_facts import Facts, read_facts
from e0_ros.core.dataset_layout import DatasetError as LayoutError
from e0_ros.core.dataset_layout import check_alike
from e0_ros.core.dataset_stats import histogram
from e0_ros.core.dataset_video import VideoFormat, VideoWriter
from e0_ros.core.dataset_work import finish_episode, write_episode
from e0_ros.core.dataset_writer import write_dataset
from e0_ros.core.decode import resize_with_pad
from e0_ros.version import code_version
from sim.trajectories import PERIOD_NS, ROWS, Trajectory, read_trajectories

WORK = ".importing"
DESCRIPTION = """\
ManiSkill's trajectories (with pictures: replay_trajectory -o rgb -c pd_joint_pos), LIBERO's demonstrations (HDF5) or
folders of `e0 collect` to a LeRobotDataset v3.0 for `e0 train`. Rows are what the benchmark's simulator takes: LIBERO's
deltas (ee_delta_step: dx dy dz drx dry drz gripper), else absolute joint positions and the gripper's opening. Where
ManiSkill's actions are deltas, and of LIBERO with --rows joint_position, the row is the joints that were reached one
step later. Of files, steps that ask for no motion (no-ops) are left out, and so are demonstrations that failed; of
collected deltas, no-ops once the gripper stands still. An interrupted import goes on. LIBERO's pictures are stored
upside down, 128 px, and after the action of their index: they are turned, and have the next action. Its reader was
tested on a file of that layout, not on LIBERO's own, which were not at hand.
"""
EXAMPLES = """\
examples
  e0 import demos/StackCube-v1/trajectory.rgb.pd_joint_pos.physx_cpu.h5 --out datasets/stack
  e0 import libero_spatial/*.hdf5 --size 128 --out datasets/libero_spatial      # then, for the same simulator:
    e0 train --config config/train/libero.yaml --set data=datasets/libero_spatial output=runs/libero_spatial
    e0 eval --suite libero_spatial --seeds 0:50 --checkpoint runs/libero_spatial/checkpoint
  e0 import libero_goal/*.hdf5 --rows joint_position --out datasets/joints      # to mix with other arms' joints
  e0 import data/lift --size 64 --out datasets/lift     # deltas of e0 collect --task Lift
  e0 import data/pick data/stack --size 128 --crf 23 --gop 250 --out datasets/two   # for a journey
"""


@dataclass(frozen=True)
class Imported:
    """What an import came to."""

    dataset: str
    episodes: int
    frames: int
    noops: int
    left_out: list[dict[str, str]]


def import_files(
    files: Sequence[Path], out: Path, config: ConvertConfig, noops: bool = False, rows: str = "own"
) -> Imported:
    """Make the dataset `out` of every demonstration of some files; no dataset of that name is ever half.

    Args:
        files: HDF5 files, and packed folders.
        out: must not exist.
        config: size and coding of the pictures; the rest is not read.
        noops: keep steps that ask for no motion.
        rows: of `sim.trajectories.ROWS`.

    Raises:
        ConfigError: `out` exists, or a file cannot be read; the message has the cure.
        LayoutError: demonstrations of different arms, views or rows.

    """
    if out.exists():
        raise ConfigError(f"{out} exists; choose another --out")
    work, done, left_out = out.with_name(out.name + WORK), [], []
    code = code_version()
    how = f"{rows}-{config.image_height}-{config.codec}-{config.crf}-{config.gop}-{code.replace('/', '-')}"
    for file in files:
        digest = _digest(file)
        for trajectory in read_trajectories(file, rows):
            config = _same_signal(config, trajectory, bool(done))
            folder = work / "episodes" / f"{digest[:16]}-{trajectory.name}-{how}-{int(noops)}"
            facts = _episode(trajectory, file.name, digest, folder, config, noops)
            if facts.left_out:
                left_out.append({"bag": facts.bag, "digest": digest, "reason": facts.left_out})
            else:
                done.append((facts, folder))
    if not done:
        raise ConfigError(f"no demonstration became an episode: {'; '.join(e['reason'] for e in left_out[:5])}")
    about = {"settings": to_mapping(config), "code_version": code, "left_out": left_out}
    check_alike([facts for facts, _ in done], None, {})
    shutil.rmtree(work / "dataset", ignore_errors=True)
    write_dataset(work / "dataset", done, None, config, about)
    (work / "dataset").rename(out)
    sync(out.parent)
    shutil.rmtree(work)
    frames = sum(facts.frames for facts, _ in done)
    return Imported(str(out), len(done), frames, sum(facts.leading for facts, _ in done), left_out)


def _digest(source: Path) -> str:
    if source.is_dir():
        return PackedSource(source).digest()
    if not source.is_file():
        raise ConfigError(f"{source}: no such file or folder")
    return sha256(source)


def _same_signal(config: ConvertConfig, trajectory: Trajectory, begun: bool) -> ConvertConfig:
    """Settings with what the trajectory's rows are, which must not change within a dataset."""
    if begun and trajectory.signal != config.action:
        raise ConfigError(
            f"{trajectory.name}: its rows are {trajectory.signal}, those before are {config.action}; "
            "import files of different control modes into datasets of their own"
        )
    return replace(config, action=trajectory.signal)


def _episode(trajectory: Trajectory, file: str, digest: str, work: Path, config: ConvertConfig, noops: bool) -> Facts:
    """The episode in its work folder, made now or before; `leading` counts the steps that were left out."""
    if (found := read_facts(work)) is not None:
        return found
    whole = len(trajectory.states)
    kept = trajectory if noops else trajectory.without_noops()
    arm, name = load_embodiment(trajectory.embodiment), f"{file}/{trajectory.name}"
    facts = Facts(name, digest=f"{digest}/{trajectory.name}", episode_id=name, task=trajectory.task)
    facts.seed, facts.instruction, facts.instructions = trajectory.seed, trajectory.instruction, [kept.instruction]
    facts.outcome, facts.sources = "success" if trajectory.success else "failure", ["import"]
    facts.embodiment, facts.joint_names, facts.views = arm.name, list(arm.joint_names), list(kept.views)
    facts.step_names = list(kept.step_names)
    facts.height, facts.width = config.image_height, config.image_width
    facts.fps, facts.frames, facts.period_ns = config.fps, len(kept.states), PERIOD_NS
    facts.leading = whole - facts.frames
    if reason := _refusal(kept):
        facts.left_out = f"{name}: {reason}"
        return facts
    partial = work.with_name(work.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _fill(partial, kept, facts, config)
    finish_episode(partial, work, facts)
    return facts


def _refusal(trajectory: Trajectory) -> str:
    if not trajectory.success:
        return "it failed"
    if not trajectory.instruction:
        return "it has no instruction"
    numbers = np.isfinite(trajectory.states).all() and np.isfinite(trajectory.actions).all()
    return "" if numbers and len(trajectory.states) > 1 else "fewer than two steps, or numbers that are not finite"


def _fill(folder: Path, trajectory: Trajectory, facts: Facts, config: ConvertConfig) -> None:
    """Videos and table."""
    histograms: dict[str, list[Any]] = {}
    for view, images in trajectory.views.items():
        writer = VideoWriter(folder / f"{view}.mp4", VideoFormat.of(config, config.image_height, config.image_width))
        try:
            for image in images:
                small = resize_with_pad(image, config.image_height, config.image_width)
                writer.add(small)
                histograms.setdefault(view, []).append(histogram(small))
        finally:
            writer.close()
    skew = dict.fromkeys(trajectory.views, 0)
    frames = [
        Observation(i * PERIOD_NS, {}, state[:-1], float(state[-1]), view_skew_ns=skew)
        for i, state in enumerate(trajectory.states)
    ]
    write_episode(folder, facts, frames, trajectory.actions, [trajectory.instruction] * len(frames), histograms)


def main(argv: Sequence[str] | None = None) -> int:
    """Import; 0, or 2 if there is nothing to import."""
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="e0 import", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    p.add_argument(
        "files",
        nargs="+",
        type=Path,
        help="HDF5 files of ManiSkill (their JSON beside them) or LIBERO, or folders of e0 collect",
    )
    p.add_argument("--out", "-o", type=Path, required=True, help="folder of the dataset")
    p.add_argument("--size", type=int, default=224, help="side of the pictures in px (default: 224)")
    p.add_argument(
        "--crf", type=int, default=ConvertConfig.crf, help="of the H.264 videos, lower is larger (default: 18)"
    )
    p.add_argument("--gop", type=int, default=ConvertConfig.gop, help="frames between key frames (default: 2)")
    p.add_argument("--rows", choices=ROWS, default="own", help="what rows of actions shall be (default: own)")
    p.add_argument("--keep-noops", action="store_true", help="keep steps that ask for no motion")
    p.add_argument("--json", type=Path, help="write the figures to this file")
    options = p.parse_args(argv)
    try:
        size = {"image_height": options.size, "image_width": options.size}
        config = ConvertConfig(**size, crf=options.crf, gop=options.gop)
        told = import_files(options.files, options.out, config, options.keep_noops, options.rows)
    except (ConfigError, DatasetError, LayoutError) as error:
        print(f"e0 import: {error}", file=sys.stderr)
        return 2
    print(f"{told.dataset}: {told.episodes} episodes, {told.frames} frames; {told.noops} steps without motion left out")
    for entry in told.left_out[:50]:
        print(f"  left out: {entry['reason']}")
    if options.json:
        write_json(options.json, asdict(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
