from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest

from sim.threads import any_at_work, threads, yield_to_others

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are listed in /proc, which Linux has")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_thread_works_waits_and_ends() -> None:
    go, stop, before = threading.Event(), threading.Event(), threads()
    assert os.getpid() in before

    def work() -> None:
        go.wait()
        while not stop.is_set():
            hashlib.sha256(b"0" * 10_000_000)  # without the interpreter's lock, as a renderer does

    thread = threading.Thread(target=work)
    thread.start()
    new = threads() - before
    assert new == {thread.native_id}
    until(lambda: not any_at_work(new))
    go.set()
    until(lambda: any_at_work(new))
    yield_to_others(new, 19)
    assert os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) == 19
    stop.set()
    thread.join()
    until(lambda: not threads() & new)
    assert not any_at_work(new)
    yield_to_others(new, 19)
