"""`e0 convert`: bags to a LeRobotDataset v3.0. Needs no ROS."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e0_policy.embodiment import EmbodimentError
from e0_policy.files import sync, write_json
from e0_ros.config import add_arguments, from_arguments, to_mapping
from e0_ros.convert_bags import ERROR, THERE, Job, Plan, convert_all, find_bags, jobs
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.core.dataset_facts import Facts
from e0_ros.core.dataset_layout import DatasetError, Existing, check_alike, load_existing
from e0_ros.core.dataset_video import VideoError
from e0_ros.core.dataset_writer import write_dataset
from e0_ros.progress import Progress
from e0_ros.version import code_version

WORK = ".converting"


@dataclass(frozen=True)
class Report:
    """What a conversion came to."""

    dataset: str
    episodes: int
    frames: int
    added: int
    salvaged: int
    left_out: list[dict[str, str]]
    errors: int
    held: int
    intervened: int
    different: int
    flagged: list[dict[str, Any]]
    seconds: float
    recorded_s: float

    def text(self) -> str:
        """A few lines for a human."""
        speed = f", {self.recorded_s / self.seconds:.1f} times real time" if self.seconds and self.added else ""
        lines = [f"{self.dataset}: {self.episodes} episodes, {self.frames} frames ({self.added} episodes new{speed})"]
        if self.salvaged:
            lines.append(f"{self.salvaged} from damaged bags, up to their first gap: meta/e0.json says where")
        if self.held:
            lines.append(f"{self.held} frames where the executor followed no plan and held; meta/e0.json says where")
        if self.intervened:
            lines.append(f"{self.intervened} frames where a human had taken over: e0.intervention is 1")
        if self.different:
            lines.append(f"{self.different} frames differ from what the policy was fed live; see meta/e0.json")
        if self.flagged:
            kinds = Counter(flag.split()[0].rstrip(":") for entry in self.flagged for flag in entry["flags"])
            counts = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
            many = len(self.flagged)
            lines.append(f"{many} of the new episodes are flagged ({counts}); --flagged refuse leaves such out:")
            lines += [f"  {entry['bag']}: {flag}" for entry in self.flagged[:50] for flag in entry["flags"]]
        if self.left_out:
            lines.append(f"{len(self.left_out)} bags left out:")
            lines += [f"  {entry['bag']}: {entry['reason']}" for entry in self.left_out[:50]]
        return "\n".join(lines)


def convert(
    places: Sequence[Path], out: Path, config: ConvertConfig, selection: Selection, processes: int = 1, ray: str = ""
) -> Report:
    """Convert bags into the dataset `out`, which may exist; an interrupted conversion continues.

    Raises:
        ConfigError: nothing to convert, or wrong settings.
        DatasetError: `out` exists and cannot grow by these episodes, or no bag became an episode.
        EmbodimentError: the arm of the settings cannot be read.

    """
    out = out.resolve()  # of a link, what is behind it grows
    with _locked(out.with_name(out.name + WORK)) as work:
        return _convert(places, out, work, config, selection, processes, ray)


def _convert(
    places: Sequence[Path],
    out: Path,
    work: Path,
    config: ConvertConfig,
    selection: Selection,
    processes: int,
    ray: str,
) -> Report:
    begin = time.monotonic()
    finish_exchange(out, work)
    existing = load_existing(out) if out.exists() else None
    plan = Plan(config, selection, frozenset(existing.digests) if existing else frozenset())
    todo = jobs(find_bags(places), work / "episodes", plan)
    results = _convert_bags(todo, plan, processes, ray)
    taken, left_out = _choose(todo, results, existing)
    if existing is None and not taken:
        reasons = "\n".join(f"  {entry['bag']}: {entry['reason']}" for entry in left_out[:50])
        raise DatasetError(f"no bag became an episode; there is no dataset {out}\n{reasons}")
    settings = to_mapping(config)
    facts = [results[job] for job in taken]
    check_alike(facts, existing, settings)
    if taken:
        about = {"settings": settings, "code_version": code_version(), "left_out": left_out}
        shutil.rmtree(work / "dataset", ignore_errors=True)
        write_dataset(work / "dataset", [(results[job], job.work) for job in taken], existing, config, about)
        exchange(out, work)
    shutil.rmtree(work, ignore_errors=True)
    whole = load_existing(out)
    return Report(
        dataset=str(out),
        episodes=whole.info["total_episodes"],
        frames=whole.info["total_frames"],
        added=len(taken),
        salvaged=sum(f.salvaged for f in facts),
        left_out=left_out,
        errors=sum(entry["reason"].startswith(ERROR) for entry in left_out),
        held=sum(f.held for f in facts),
        intervened=sum(f.intervened for f in facts),
        different=sum(f.different for f in facts),
        flagged=[{"bag": f.bag, "flags": f.flags} for f in facts if f.flags],
        seconds=time.monotonic() - begin,
        recorded_s=sum(f.frames / f.fps for f in facts),
    )


@contextmanager
def _locked(work: Path) -> Iterator[Path]:
    """The work folder, for this process alone."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"{work}: another e0 convert is at work there; let it finish") from None
        yield work


def exchange(out: Path, work: Path) -> None:
    """Put the whole dataset of the work folder in its place; at no time is there half a one under that name."""
    if out.exists():
        shutil.rmtree(work / "replaced", ignore_errors=True)
        out.rename(work / "replaced")
    (work / "dataset").rename(out)
    sync(out.parent)


def finish_exchange(out: Path, work: Path) -> None:
    """After an interruption between the two renames: put the dataset back that was moved away."""
    replaced = work / "replaced"
    if not out.exists() and (replaced / "meta" / "e0.json").is_file():
        replaced.rename(out)


def _convert_bags(todo: Sequence[Job], plan: Plan, processes: int, ray: str) -> dict[Job, Facts]:
    results: dict[Job, Facts] = {}
    progress = Progress(len(todo), "bags")
    for job, facts in convert_all(todo, plan, processes, ray):
        results[job] = facts
        progress.advance(facts.bag)
        if facts.damage:
            progress.say(f"{facts.bag}: damaged: {'; '.join(facts.damage)}")
    progress.close()
    return results


def _choose(
    todo: Sequence[Job], results: dict[Job, Facts], existing: Existing | None
) -> tuple[list[Job], list[dict[str, str]]]:
    """Jobs that become episodes, in order, and what is left out with the reasons.

    Of a damaged bag and what `e0 bag repair` made of it, one alone is an episode: what is there, or else the latter.
    """
    taken: list[Job] = []
    left_out: list[dict[str, str]] = []
    seen = existing.digests if existing else set()
    before = existing.e0["episodes"] if existing else []
    bags = {(row["bag"], row["start_ns"]) for row in before}
    found = [*before, *(vars(facts) for facts in results.values() if not facts.left_out)]
    copies = {(row.get("recovered_from"), row["start_ns"]): row["bag"] for row in found}
    for job in todo:
        facts = results[job]
        reason = facts.left_out or (THERE if facts.digest in seen else "")
        if not reason and (copy := copies.get((facts.bag, facts.start_ns))):
            reason = f"{copy} was recovered from it"
        elif not reason and (facts.recovered_from, facts.start_ns) in bags:
            reason = f"{facts.recovered_from}, which it was recovered from, is in the dataset"
        if reason:
            left_out.append({"bag": facts.bag, "digest": facts.digest, "reason": reason})
        else:
            taken.append(job)
            seen.add(facts.digest)
    return taken, left_out


def main(argv: Sequence[str] | None = None) -> int:
    """Convert; 1 if there is no dataset at the end, or if an error of the code left a bag out."""
    parser = argparse.ArgumentParser(
        prog="e0 convert",
        description="Convert bags to a LeRobotDataset v3.0. Run it again to continue an interrupted conversion, or "
        "with more bags to let the dataset grow.",
        epilog="example: e0 convert bags --out datasets/pick --outcomes success --tasks 'Pick*'. Rows of "
        "LIBERO's bags are its deltas.",
    )
    parser.add_argument("bags", nargs="+", type=Path, help="bag folders, .mcap files, or folders of them")
    parser.add_argument("--out", "-o", type=Path, required=True, metavar="DIR", help="folder of the dataset")
    parser.add_argument("--jobs", "-j", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--ray", default="", metavar="ADDRESS", help="convert on this Ray cluster (or 'local')")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    add_arguments(parser.add_argument_group("which bags"), Selection)  # type: ignore[arg-type]
    add_arguments(parser.add_argument_group("how"), ConvertConfig)  # type: ignore[arg-type]
    options = parser.parse_args(argv)
    try:
        config, selection = from_arguments(ConvertConfig, options), from_arguments(Selection, options)
        report = convert(options.bags, options.out, config, selection, max(1, options.jobs), options.ray)
    except BrokenProcessPool:
        print("e0 convert: a process was killed (out of memory?); fewer --jobs; the next run goes on", file=sys.stderr)
        return 1
    except (DatasetError, EmbodimentError, VideoError, OSError) as error:
        print(f"e0 convert: {error}", file=sys.stderr)
        return 1
    print(report.text())
    if options.json:
        write_json(options.json, vars(report))
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
