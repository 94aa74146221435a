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
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from e0_policy.embodiment import Embodiment, load_embodiment
from e0_ros.config import ConfigError, to_mapping
from e0_ros.core.bag_reader import bags_in, mcap_files
from e0_ros.core.bag_writer import DISCARDED
from e0_ros.core.dataset_bag import bag_digest
from e0_ros.core.dataset_config import ConvertConfig, Selection
from e0_ros.core.dataset_episode import convert_bag
from e0_ros.core.dataset_facts import Facts, read_facts
from e0_ros.ray_cluster import cluster
from e0_ros.version import code_version

ERROR = "ERROR"
"""Begins the reason of a bag that an error of the code left out."""
THERE = "it is in the dataset already"


@dataclass(frozen=True)
class Job:
    """A bag and the folder of its work; the folder's name holds what its content depends on."""

    bag: Path
    work: Path


@dataclass(frozen=True)
class Plan:
    """What is asked of every bag. `there` are the digests of those that are in the dataset, which are not converted."""

    config: ConvertConfig
    selection: Selection
    there: frozenset[str] = frozenset()


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


def jobs(bags: Sequence[Path], work: Path, plan: Plan) -> list[Job]:
    """A work folder per bag; a bag, a setting, an arm of one's own or code that changed gets another one.

    Raises:
        EmbodimentError: the arm cannot be read.

    """
    arm = _values(load_embodiment(plan.config.embodiment)) if plan.config.embodiment else {}
    common = json.dumps([to_mapping(plan.config), to_mapping(plan.selection), arm, code_version()], sort_keys=True)
    return [Job(bag, work / f"{_slug(bag.name)}-{_key(bag, common)}") for bag in bags]


def convert_all(todo: Sequence[Job], plan: Plan, processes: int, ray: str = "") -> Iterator[tuple[Job, Facts]]:
    """Convert bags side by side; gives each result as it comes. `ray` is a cluster's address, empty for processes.

    Raises:
        ConfigError: a cluster is asked for and Ray is not installed.

    """
    if ray:
        yield from _on_ray(todo, plan, ray)
    elif processes == 1 or len(todo) < 2:
        for job in todo:
            yield job, one(job, plan)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(todo)), context, _follow, (os.getpid(),)) as pool:
            futures = {pool.submit(one, job, plan): job for job in todo}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def one(job: Job, plan: Plan) -> Facts:
    """Convert one bag with one thread, unless an earlier run did or it is in the dataset.

    An error of the code costs this bag alone, and it is tried again next time.

    Raises:
        OSError: the file system refuses.

    """
    cv2.setNumThreads(1)
    try:
        if (found := read_facts(job.work)) is not None:
            return found
        digest = bag_digest(job.bag)
        if digest in plan.there:
            return Facts(job.bag.name, left_out=THERE, digest=digest)
        return convert_bag(job.bag, job.work, plan.config, plan.selection, digest)
    except OSError:
        raise
    except Exception as error:
        return Facts(job.bag.name, left_out=f"{ERROR}: {type(error).__name__}: {error}")


def _on_ray(todo: Sequence[Job], plan: Plan, address: str) -> Iterator[tuple[Job, Facts]]:
    with cluster(address) as ray:
        remote: Any = ray.remote(num_cpus=1)(one)
        shared = ray.put(plan)
        waiting = {remote.remote(job, shared): job for job in todo}
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
    found = bags_in(place)
    yield from found
    if found == [place]:
        return
    for child in place.iterdir():
        if child.is_dir() and child.name != DISCARDED:
            yield from _bags(child)


def _values(arm: Embodiment) -> dict[str, Any]:
    return {field.name: np.asarray(getattr(arm, field.name)).tolist() for field in fields(arm)}


def _slug(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)[:48]


def _key(bag: Path, common: str) -> str:
    stats = [file.stat() for file in ([bag] if bag.is_file() else mcap_files(bag))]
    text = "\n".join([str(bag), *(f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats), common])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
