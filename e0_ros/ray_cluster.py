"""Ray, for those who have a cluster; an optional extra, imported only when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from e0_ros.config import ConfigError

LOCAL = "local"
LOOPBACK = "127.0.0.1"


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """The module `ray`, connected; a cluster of this machine alone listens on loopback and ends with the block.

    Code and folders must be at the same paths on every machine. Nothing is told to Ray's makers.

    Args:
        address: of the cluster (`ray://HOST:10001`, `HOST:6379`, `auto`), or `local`.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.

    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigError("ray is not installed here; install the extra: pip install 'e0_ros[ray]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address == LOCAL:
            _begin_here(ray)
        else:
            ray.init(address=address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"--ray {address}: the cluster cannot be reached: {error}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _begin_here(ray: Any) -> None:
    """A cluster that only this machine reaches: Ray itself puts its outward address in the place of a loopback one."""
    from ray._private import services

    outward = services.get_node_ip_address
    services.get_node_ip_address = lambda address=None: LOOPBACK
    try:
        ray.init(include_dashboard=False, log_to_driver=False, _node_ip_address=LOOPBACK)
    finally:
        services.get_node_ip_address = outward
