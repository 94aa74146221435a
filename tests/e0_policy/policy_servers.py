"""Policy servers for tests, on loopback or a socket in a folder."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from e0_policy.policy_server import make_server, port_of


@contextlib.contextmanager
def serving(
    infer: Callable[[Mapping[str, Any]], dict[str, Any]], address: str = "127.0.0.1:0", **metadata: Any
) -> Iterator[str]:
    """A server in a thread; gives its address."""
    server = make_server(infer, metadata, address)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address if "://" in address else f"ws://127.0.0.1:{port_of(server)}"
    finally:
        server.shutdown()
        thread.join(10.0)
