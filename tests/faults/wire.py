"""Two network namespaces as two computers, and the cable between them: what it loses, delays, or that it is pulled.

with Wire(seed=1) as wire:                       # needs root, iproute2 and /dev/net/tun; `missing()` says which is not
    with wire.inside(ROBOT): ...                 # sockets that are made here, by this thread, are the robot's
    subprocess.Popen(wire.command(POLICY, "python", "-m", ...))      # a process on the other computer
    wire.becomes(loss=0.2, delay_s=0.1)
    wire.up = False

Ends of the cable are TAP devices, whose frames a thread carries: that is seeded and needs no sch_netem, which not every
kernel has. The other computer has a /dev/shm of its own, so that no shared memory joins the two.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import math
import os
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROBOT, POLICY = "robot", "policy"
REASSEMBLY_S = 1
"""How long a host keeps parts of a datagram whose rest is lost, see BENCH_GUIDE.md, section 2. With the kernel's 30
they fill its 4 MiB, and then nothing arrives that is longer than a frame, not even over a good cable.
"""
ADDRESSES = {ROBOT: "10.77.42.1", POLICY: "10.77.42.2"}
FRAME_BYTES, QUEUE_S = 2048, 0.1
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI, _CLONE_NEWNET = 0x400454CA, 0x0002, 0x1000, 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def missing() -> str:
    """Why there cannot be a wire here; empty: there can."""
    if not shutil.which("ip"):
        return "iproute2 is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"e0_try_{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces are not permitted: {made.stderr.strip()}"
    try:
        with _entered(f"/run/netns/{name}"):
            os.close(_tap())
    except OSError as error:
        return f"no TAP device: {error}"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)
    return ""


@contextmanager
def _entered(path: str) -> Iterator[None]:
    """This thread in another network namespace; threads and processes that it starts come along."""
    before, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(path, os.O_RDONLY)
    try:
        _set_namespace(there)
        yield
    finally:
        _set_namespace(before)
        os.close(before)
        os.close(there)


def _set_namespace(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _tap() -> int:
    """The other end of a new device `lan` in this thread's namespace."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", b"lan", _IFF_TAP | _IFF_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Wire:
    """A context. `up` may be changed at any time; `carried` counts bytes by sender."""

    def __init__(self, seed: int) -> None:
        self.up = True
        self.becomes()
        self.carried = dict.fromkeys(ADDRESSES, 0)
        self._rng = np.random.default_rng(seed)
        self._names = {host: f"e0_{host}_{os.getpid()}" for host in ADDRESSES}
        self._ends: dict[str, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)

    def __enter__(self) -> Wire:
        for host, name in self._names.items():
            self._ip("netns", "add", name)
            with self.inside(host):
                self._ends[host] = _tap()
                Path("/proc/sys/net/ipv4/ipfrag_time").write_text(str(REASSEMBLY_S))
            self._ip("-n", name, "address", "add", f"{ADDRESSES[host]}/24", "dev", "lan")
            self._ip("-n", name, "link", "set", "lan", "up")
            self._ip("-n", name, "link", "set", "lo", "up")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        for end in self._ends.values():
            os.close(end)
        for name in self._names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def becomes(self, loss: float = 0.0, delay_s: float = 0.0, mbit_s: float = math.inf) -> None:
        """Another cable: share of lost frames, delay one way [s], rate each way behind a queue of `QUEUE_S`."""
        self._loss, self._delay_s, self._mbit_s = loss, delay_s, mbit_s

    @contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """This thread on one of the computers."""
        with _entered(f"/run/netns/{self._names[host]}"):
            yield

    def command(self, host: str, *command: str) -> list[str]:
        """What runs a command there, with a /dev/shm of its own."""
        private = 'mount -t tmpfs shm /dev/shm && exec "$0" "$@"'
        return ["ip", "netns", "exec", self._names[host], "sh", "-c", private, *command]

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def _carry(self) -> None:
        """Take frames as they come; give each to the other end when it is due, in the order of their dues."""
        ends = {self._ends[host]: (host, self._ends[other]) for host, other in ((ROBOT, POLICY), (POLICY, ROBOT))}
        wire: list[tuple[float, int, int, bytes]] = []
        count, free_s = 0, dict.fromkeys(ends, 0.0)
        while not self._stopping.is_set():
            wait_s = min(0.05, max(0.0, wire[0][0] - time.monotonic())) if wire else 0.05
            for end in select.select(list(ends), [], [], wait_s)[0]:
                host, other = ends[end]
                for frame in _frames(end):
                    now_s = time.monotonic()
                    begins_s = max(now_s, free_s[end])
                    if self.up and begins_s - now_s < QUEUE_S and self._rng.random() >= self._loss:
                        count += 1
                        self.carried[host] += len(frame)
                        free_s[end] = begins_s + 8e-6 * len(frame) / self._mbit_s
                        heapq.heappush(wire, (free_s[end] + self._delay_s, count, other, frame))
            while wire and wire[0][0] <= time.monotonic():
                _, _, other, frame = heapq.heappop(wire)
                if self.up:
                    _give(other, frame)


def _frames(end: int) -> Iterator[bytes]:
    """What has come, a few at a time."""
    for _ in range(64):
        try:
            yield os.read(end, FRAME_BYTES)
        except BlockingIOError:
            return


def _give(end: int, frame: bytes) -> None:
    try:
        os.write(end, frame)
    except BlockingIOError:
        return  # the receiver's queue is full: the frame is lost, as on a switch
