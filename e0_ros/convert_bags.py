"""Which bags there are, and converting many of them: in processes, or on a Ray cluster."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from e0_ros.config import ConfigError, to_mapping
from e0_ros.core.bag_writer import DISCARDED
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.core.dataset_episode import convert_bag
from e0_ros.core.dataset_facts import Facts
from e0_ros.ray_cluster import cluster

ERROR = "ERROR"
"""Begins the reason of a bag that an error of the code left out."""


@dataclass(frozen=True)
class Job:
    """A bag and the folder of its work; the folder's name holds what its content depends on."""

    bag: Path
    work: Path


def find_bags(places: Sequence[Path]) -> list[Path]:
    """Bags below the places given, by name: bag folders, .mcap files and folders of such; never discarded takes.

    Raises:
        ConfigError: a place that does not exist or holds no bag.

    """
    found: dict[Path, None] = {}
    for place in places:
        here = sorted(_bags(place)) if place.exists() else []
        if not here:
            cause = "there is no bag below it" if place.exists() else "no such file or folder"
            raise ConfigError(f"{place}: {cause}; give bag folders, .mcap files or a folder of them")
        found |= dict.fromkeys(path.resolve() for path in here)
    return sorted(found, key=lambda path: (path.name, str(path)))


def jobs(bags: Sequence[Path], work: Path, config: ConvertConfig, selection: Selection) -> list[Job]:
    """A work folder per bag; a bag or a setting that changed gets another one."""
    settings = json.dumps([to_mapping(config), to_mapping(selection)], sort_keys=True)
    return [Job(bag, work / f"{_slug(bag.name)}-{_key(bag, settings)}") for bag in bags]


def convert_all(
    todo: Sequence[Job], config: ConvertConfig, selection: Selection, processes: int, ray: str = ""
) -> Iterator[tuple[Job, Facts]]:
    """Convert bags side by side; gives each result as it comes. `ray` is a cluster's address, empty for processes.

    Raises:
        ConfigError: a cluster is asked for and Ray is not installed.

    """
    if ray:
        yield from _on_ray(todo, config, selection, ray)
    elif processes == 1 or len(todo) < 2:
        for job in todo:
            yield job, one(job, config, selection)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(todo)), context, _follow, (os.getpid(),)) as pool:
            futures = {pool.submit(one, job, config, selection): job for job in todo}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def one(job: Job, config: ConvertConfig, selection: Selection) -> Facts:
    """Convert one bag with one thread. An error of the code costs this bag alone, and it is tried again next time.

    Raises:
        OSError: the file system refuses.

    """
    cv2.setNumThreads(1)
    try:
        return convert_bag(job.bag, job.work, config, selection)
    except OSError:
        raise
    except Exception as error:
        return Facts(job.bag.name, left_out=f"{ERROR}: {type(error).__name__}: {error}")


def _on_ray(
    todo: Sequence[Job], config: ConvertConfig, selection: Selection, address: str
) -> Iterator[tuple[Job, Facts]]:
    with cluster(address) as ray:
        remote: Any = ray.remote(num_cpus=1)(one)
        waiting = {remote.remote(job, config, selection): job for job in todo}
        while waiting:
            ready, _ = ray.wait(list(waiting))
            for reference in ready:
                yield waiting.pop(reference), ray.get(reference)


def _follow(parent: int) -> None:
    """In a worker: leave Ctrl-C to the parent, and end when the parent is gone, so that nobody writes behind it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _bags(place: Path) -> Iterator[Path]:
    if place.is_file():
        if place.suffix == ".mcap":
            yield place
        return
    if any(place.glob("*.mcap")):
        yield place
        return
    for child in place.iterdir():
        if child.is_dir() and child.name != DISCARDED:
            yield from _bags(child)


def _slug(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)[:48]


def _key(bag: Path, settings: str) -> str:
    file = bag if bag.is_file() else next(iter(sorted(bag.glob("*.mcap"))))
    stat = file.stat()
    text = f"{bag}\n{stat.st_size}\n{stat.st_mtime_ns}\n{settings}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
