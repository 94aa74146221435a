"""`e0 inspect`: bags and datasets at a glance, in the terminal, as one HTML file and as JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

from e0_policy.files import write_whole
from e0_ros.core.bag_reader import bags_in
from e0_ros.core.bag_writer import DISCARDED
from e0_ros.core.inspection import TakeReport, short
from e0_ros.core.inspection_bag import inspect_bag
from e0_ros.core.inspection_dataset import inspect_episodes, inspect_videos, jobs
from e0_ros.core.inspection_findings import compare
from e0_ros.core.inspection_lerobot import Dataset, DatasetReadError, is_dataset, open_dataset
from e0_ros.core.inspection_totals import Totals, totals_of
from e0_ros.inspect_html import write_html
from e0_ros.inspect_table import summary, table

MAX_DEPTH = 6
Job = tuple[str, Callable[..., list[TakeReport]], tuple[Any, ...], int]
"""Name, what to call with which arguments, and how many takes it gives."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb. Returns the exit status: 1 if there is nothing to inspect, or with `--strict` a suspicious take."""
    parser = argparse.ArgumentParser(
        prog="e0 inspect",
        description="Durations, rates, gaps, skew, joint ranges, smoothness and pictures of bags and of LeRobot v3 "
        "datasets; what is suspicious comes first. Damaged and partial bags are reported and salvaged.",
        epilog="example: e0 inspect bags --html report.html",
    )
    parser.add_argument("paths", nargs="+", type=Path, help="bags, folders of bags, or LeRobot v3 datasets")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with pictures and plots, one file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if a take is suspicious")
    parser.add_argument("--rows", type=int, default=40, help="takes to list in the terminal (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--html-mb", type=int, default=48, help="pictures up to this size (default: %(default)s MB)")
    arguments = parser.parse_args(argv)
    takes = inspect(arguments.paths, pictures=arguments.html is not None, processes=max(1, arguments.jobs))
    if not takes:
        paths = ", ".join(map(str, arguments.paths))
        print(f"e0 inspect: {paths}: no bag (*.mcap) and no LeRobot dataset (meta/info.json) there", file=sys.stderr)
        return 1
    totals = totals_of(takes)
    print(table(takes, arguments.rows))
    print(summary(totals))
    try:
        _write(arguments, takes, totals)
    except OSError as error:
        print(f"e0 inspect: {error.filename}: cannot be written ({error.strerror})", file=sys.stderr)
        return 1
    nothing = all(take.fault and not take.streams for take in takes)
    return int(nothing or (arguments.strict and totals.suspicious > 0))


def inspect(paths: Sequence[Path], *, pictures: bool = False, processes: int = 1) -> list[TakeReport]:
    """Every take below the paths: damaged ones first, then the one with most findings, and so on; else by path."""
    takes: list[TakeReport] = []
    todo: list[Job] = []
    for path in paths:
        for found in _find(path):
            if isinstance(found, TakeReport):
                takes.append(found)
            else:
                todo.append(found)
    takes += _run(todo, pictures, processes)
    compare(takes)
    return sorted(takes, key=lambda t: (not t.fault, -len(t.findings), t.path, t.name))


def _find(path: Path, depth: int = 0) -> Iterator[Job | TakeReport]:
    if is_dataset(path):
        yield from _dataset(path)
    elif path.is_file() and path.suffix == ".mcap":
        yield (path.name, _bags, ([path],), 1)
    elif path.is_dir():
        bags = bags_in(path)
        for bag in bags:
            yield (bag.name, _bags, ([bag],), 1)
        if bags != [path] and depth < MAX_DEPTH:
            for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.is_symlink()):
                if not folder.name.startswith(".") and folder.name != DISCARDED:
                    yield from _find(folder, depth + 1)
    elif not path.exists():
        yield TakeReport(path.name, str(path), "bag", "there is no such file or folder")


def _dataset(path: Path) -> Iterator[Job | TakeReport]:
    try:
        dataset = open_dataset(path)
    except DatasetReadError as error:
        yield TakeReport(path.name, str(path), "dataset", short(str(error)))
        return
    for places in jobs(dataset):
        yield (path.name, _episodes, (dataset, places), len(places))
    for view in dataset.views:
        yield (view, _videos, (dataset, view), 0)


def _bags(paths: list[Path], pictures: bool) -> list[TakeReport]:
    return [inspect_bag(path, pictures=pictures) for path in paths]


def _episodes(dataset: Dataset, places: list[int], pictures: bool) -> list[TakeReport]:
    return inspect_episodes(dataset, places, pictures=pictures)


def _run(todo: list[Job], pictures: bool, processes: int) -> list[TakeReport]:
    progress = _Progress(sum(count for *_, count in todo))
    takes: list[TakeReport] = []
    if min(processes, len(todo)) < 2:
        for _, call, arguments, count in todo:
            takes += call(*arguments, pictures)
            progress.add(count)
        return takes
    with ProcessPoolExecutor(min(processes, len(todo)), initializer=_quiet) as pool:
        futures: dict[Future[list[TakeReport]], Job] = {pool.submit(job[1], *job[2], pictures): job for job in todo}
        for future in as_completed(futures):
            name, *_, count = futures[future]
            try:
                takes += future.result()
            except (BrokenProcessPool, MemoryError) as error:
                takes.append(TakeReport(name, name, "bag", f"the process that read it died ({type(error).__name__})"))
            progress.add(count)
    return takes


def _videos(dataset: Dataset, view: str, pictures: bool) -> list[TakeReport]:
    return inspect_videos(dataset, view)


def _quiet() -> None:
    """Keep a worker to its own core."""
    import cv2

    cv2.setNumThreads(1)


class _Progress:
    """A bar on a terminal's standard error."""

    def __init__(self, total: int) -> None:
        self._done, self._total, self._shown = 0, total, sys.stderr.isatty() and total > 1

    def add(self, count: int) -> None:
        self._done += count
        if self._shown:
            width = 30 * self._done // max(1, self._total)
            end = "\r" + " " * 60 + "\r" if self._done == self._total else ""
            print(f"\r[{'#' * width:<30}] {self._done}/{self._total} takes{end}", end="", file=sys.stderr, flush=True)


def _write(arguments: argparse.Namespace, takes: Sequence[TakeReport], totals: Totals) -> None:
    if arguments.json is not None:
        text = json.dumps({"totals": totals.plain(), "takes": [_plain(t) for t in takes]}, indent=1, allow_nan=False)
        write_whole(arguments.json, text + "\n")
    if arguments.html is not None:
        title = ", ".join(str(path) for path in arguments.paths[:3]) + (" ..." if len(arguments.paths) > 3 else "")
        left_out = write_html(arguments.html, takes, totals, title, arguments.html_mb * 1_000_000)
        note = f" (pictures of {left_out} takes left out; --html-mb allows more)" if left_out else ""
        print(f"{arguments.html}  {arguments.html.stat().st_size / 1e6:.1f} MB{note}")


def _plain(take: TakeReport) -> dict[str, Any]:
    """A take's figures; what is no number in JSON is null."""
    values = asdict(take)
    for key in ("thumbnails", "plot"):
        del values[key]
    values["suspicious"] = take.suspicious
    return _finite(values)  # type: ignore[no-any-return]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
