from __future__ import annotations

import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from lerobot_folder import write_folder

from e0_policy import image_cache
from e0_policy.dataset import DatasetError, partial_of
from e0_policy.image_cache import cached
from e0_policy.lerobot_source import LeRobotSource
from e0_policy.transforms import resize_with_pad


def make(source, folder, side=16, views=("wrist",), calls=None):
    return cached(source, source.digest(), views, side, folder, lambda done, total: calls.append((done, total)))


def test_cached_images_are_those_of_the_policys_transform(tmp_path):
    write_folder(tmp_path / "d", (6, 5), side=64)
    source, calls = LeRobotSource(tmp_path / "d"), []
    got = make(source, tmp_path / "cache", calls=calls)
    assert got.views == ("wrist",) and calls == [(6, 11), (11, 11)]
    for e, t in ((0, 0), (0, 5), (1, 3)):
        np.testing.assert_array_equal(got.images(e, t)["wrist"], resize_with_pad(source.images(e, t)["wrist"], 16))
        np.testing.assert_array_equal(got.episodes[e].actions, source.episodes[e].actions)


def test_it_is_made_once_for_each_size_views_and_content(tmp_path):
    write_folder(tmp_path / "d", (4, 2))
    source, cache = LeRobotSource(tmp_path / "d"), tmp_path / "cache"
    for side, views, entries in ((16, ("wrist",), 1), (16, ("wrist",), 1), (8, ("wrist",), 2), (8, ("base",), 3)):
        calls = []
        make(source, cache, side, views, calls)
        assert len(list(cache.glob("[0-9]*"))) == entries
    make(source, cache, 8, ("base",), calls := [])
    assert not calls and not [p for p in cache.iterdir() if "lock" in p.name or "partial" in p.name]
    (tmp_path / "d/meta/e0.json").write_text((tmp_path / "d/meta/e0.json").read_text() + " ")
    make(LeRobotSource(tmp_path / "d"), cache, 8, ("base",), calls)
    assert len(calls) == 2


def test_half_a_cache_is_none(tmp_path):
    write_folder(tmp_path / "d", (4, 2))
    source = LeRobotSource(tmp_path / "d")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(source, source.digest(), ("base",), 16, tmp_path / "cache", stop)
    assert not list((tmp_path / "cache").glob("16px-????????????????"))
    make(source, tmp_path / "cache", views=("base",), calls=(calls := []))
    assert len(calls) == 2 and not list((tmp_path / "cache").glob("*partial*"))


def test_of_two_that_ask_at_once_one_decodes(tmp_path):
    write_folder(tmp_path / "d", (4, 2))
    source, calls, results = LeRobotSource(tmp_path / "d"), [], []
    threads = [
        threading.Thread(target=lambda: results.append(make(source, tmp_path / "cache", calls=calls))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 2 and len(results) == 3


def test_a_disk_without_room_and_a_folder_that_cannot_be_written_are_named(tmp_path, monkeypatch):
    write_folder(tmp_path / "d", (4, 2))
    source = LeRobotSource(tmp_path / "d")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: usage._replace(free=4000))
    with pytest.raises(DatasetError, match=r"decoded images need 0\.0 GB, 0\.0 GB are free; give another cache_dir"):
        make(source, tmp_path / "cache", calls=[])
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"file cannot be written .*; give another cache_dir"):
        make(source, tmp_path / "file", calls=[])


def test_what_a_killed_decoding_left_takes_no_room_and_other_caches_are_named(tmp_path, monkeypatch):
    write_folder(tmp_path / "d", (4, 2))
    source, cache = LeRobotSource(tmp_path / "d"), tmp_path / "cache"
    make(source, cache, calls=[])
    (whole,) = cache.iterdir()
    left = whole.rename(partial_of(whole))

    def usage(path):
        return SimpleNamespace(free=0 if left.exists() else 10_000)

    monkeypatch.setattr(image_cache.shutil, "disk_usage", usage)
    make(source, cache, calls=[])
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(DatasetError, match=f"remove {whole.name}; give another cache_dir"):
        make(source, cache, views=("base",), calls=[])
