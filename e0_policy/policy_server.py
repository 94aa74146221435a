"""A policy server that speaks openpi's protocol: what `PolicyConnection` asks, and openpi's own client too."""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve, unix_serve

from e0_policy.array_wire import MAX_BYTES, pack, unpack
from e0_policy.policy_connection import NUMBER, UNIX


def make_server(
    infer: Callable[[Mapping[str, Any]], dict[str, Any]], metadata: Mapping[str, Any], address: str
) -> Server:
    """A server, ready for `serve_forever` and `shutdown`. One request is answered at a time, whoever asks.

    A request's number is sent back; a request that fails is answered with its traceback and the connection's end, as
    openpi's servers do.

    Args:
        infer: answers a request.
        metadata: sent to each client first.
        address: `unix://PATH`, for the owner of its folder alone, or `HOST:PORT`.

    """
    alone = threading.Lock()

    def talk(connection: ServerConnection) -> None:
        connection.send(pack({**metadata, NUMBER: True}))
        try:
            while True:
                message = connection.recv()
                request = unpack(message if isinstance(message, bytes) else message.encode())
                with alone:
                    reply = infer(request)
                connection.send(pack({**reply, NUMBER: request[NUMBER]} if NUMBER in request else reply))
        except ConnectionClosed:
            return
        except Exception:
            connection.send(traceback.format_exc())
            connection.close(1011, "the traceback is in the message before")

    limits: dict[str, Any] = {"compression": None, "max_size": MAX_BYTES, "ping_interval": None}
    if address.startswith(UNIX):
        path = Path(address.removeprefix(UNIX))
        path.unlink(missing_ok=True)
        return unix_serve(talk, str(path), **limits)
    host, _, port = address.rpartition(":")
    return serve(talk, host or "127.0.0.1", int(port), **limits)


def port_of(server: Server) -> int:
    """The port that a server of `HOST:0` got."""
    name: tuple[str, int] = server.socket.getsockname()[:2]
    assert server.socket.family in (socket.AF_INET, socket.AF_INET6)
    return name[1]
