"""A ROS domain that nobody else is in, for what must reach nobody's arm: tests, benchmarks, soaks."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from e0_ros.distribution import distribution

DOMAINS = range(1, 101)
"""Of the 102 whose ports are below Linux's ephemeral ones; 0 is everybody's."""

_BASE, _GAIN, _FIRST, _LAST = 7400, 250, 10, 248
"""RTPS 2.5, 9.6.2.3: ports of a domain, of its first participant, and of one that no bench has (the 120th)."""


@contextlib.contextmanager
def own_domain() -> Iterator[int]:
    """Leave the shell's domain for a free one, on this host only, held until the end.

    A socket on a port that no participant gets keeps other runs of the tests out of it.
    """
    shell = os.environ.get("ROS_DOMAIN_ID", "0")
    start = os.getpid() % len(DOMAINS)
    held = None
    for domain in (*DOMAINS[start:], *DOMAINS[:start]):
        if str(domain) != shell and (held := _reserve(domain)) is not None:
            break
    if held is None:
        raise RuntimeError("every ROS domain from 1 to 100 is in use on this host; end what runs there")
    with held:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        if not distribution("", os.environ).discovery_range:
            os.environ["ROS_LOCALHOST_ONLY"] = "1"
        os.environ.pop("ROS_STATIC_PEERS", None)
        yield domain


def _reserve(domain: int) -> socket.socket | None:
    """The socket that holds a domain; None if it is held, or a participant is there."""
    base = _BASE + _GAIN * domain
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:
            first.bind(("127.0.0.1", base + _FIRST))
        held.bind(("127.0.0.1", base + _LAST))
    except OSError:
        held.close()
        return None
    return held
