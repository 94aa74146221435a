"""A connection to a policy server that speaks openpi's protocol: one request, one reply, over a websocket.

The protocol does not number its requests, so a reply is known to be the one that was asked for only because nothing
else is under way on its connection. A connection on which anything went wrong (no reply in time, an error, a message
that nobody asked for) is therefore thrown away, and with it whatever is still on its way.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect, unix_connect

from e0_policy.array_wire import MAX_BYTES, WireError, pack, unpack

DEFAULT_PORTS = {"ws": 8000, "wss": 443}
UNIX = "unix://"
_RETRY_S = 0.2
NUMBER = "e0/request"
"""A server whose metadata has this key sends the number of a request back, which is then checked too."""


class PolicyServerError(RuntimeError):
    """A policy server is not there, did not answer in time, or answered with an error; the message says which."""


class PolicyConnection:
    """Asks a policy server. Used from one thread.

    Args:
        address: `ws://HOST[:8000]`, `wss://...`, or `unix://PATH`.
        timeout_s: longest time for a reply.
        first_timeout_s: the same for the first reply of all, before which a server may compile its network.
        api_key: sent as openpi's client does; none if empty.

    """

    def __init__(
        self, address: str, timeout_s: float = 10.0, first_timeout_s: float = 300.0, api_key: str = ""
    ) -> None:
        self.address = address
        self._patience_s, self._first_s = timeout_s, first_timeout_s
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._connection: ClientConnection | None = None
        self._socket: socket.socket | None = None
        self._metadata: dict[str, Any] = {}
        self._number = 0
        self._answered = False

    def metadata(self, wait_s: float = 0.0) -> dict[str, Any]:
        """What the server tells of itself; connects if need be, trying again for `wait_s`.

        Raises:
            PolicyServerError: it is not there, or no policy server.

        """
        deadline_s = time.monotonic() + wait_s
        while self._connection is None:
            try:
                self._connect()
            except PolicyServerError:
                if time.monotonic() >= deadline_s:
                    raise
                time.sleep(_RETRY_S)
        return self._metadata

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return its reply.

        Raises:
            PolicyServerError: no reply in time, an error of the server's, or a lost connection. The next call connects
                anew.

        """
        numbered = NUMBER in self.metadata()
        self._number += 1
        try:
            data = pack({**request, NUMBER: self._number} if numbered else request)
            reply = self._exchange(data)
            if numbered and (got := reply.get(NUMBER)) != self._number:
                raise WireError(f"the reply is to request {got}, not {self._number}")
        except TimeoutError:
            raise self._lost(f"no reply within {self._timeout_s():g} s") from None
        except (OSError, WebSocketException, WireError) as error:
            raise self._lost(f"{error or type(error).__name__}") from None
        self._answered = True
        return reply

    def close(self) -> None:
        """Throw the connection away, without waiting for the other side."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.socket.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                self._connection.socket.close()
        self._connection = None

    def _timeout_s(self) -> float:
        return self._patience_s if self._answered else max(self._patience_s, self._first_s)

    def _lost(self, reason: str) -> PolicyServerError:
        self.close()
        return PolicyServerError(f"policy server {self.address}: {reason}")

    def _exchange(self, data: bytes) -> dict[str, Any]:
        connection = self._connection
        assert connection is not None
        with contextlib.suppress(TimeoutError):
            connection.recv(timeout=0)
            raise WireError("it sent a message that nobody had asked for")
        connection.send(data)
        return _read(connection.recv(timeout=self._timeout_s()))

    def _connect(self) -> None:
        limits: dict[str, Any] = {"compression": None, "max_size": MAX_BYTES, "ping_interval": None, "proxy": None}
        limits |= {"open_timeout": self._patience_s, "additional_headers": self._headers}
        try:
            opened = _open(self.address, self._patience_s)
            self._connection = (
                unix_connect(None, "ws://localhost/", sock=opened, **limits)
                if self.address.startswith(UNIX)
                else connect(self.address, sock=opened, **limits)
            )
            self._metadata = _read(self._connection.recv(timeout=self._patience_s))
        except (OSError, WebSocketException, WireError, EOFError) as error:
            raise self._lost(f"cannot be reached: {error or type(error).__name__}") from None


def _open(address: str, timeout_s: float) -> socket.socket:
    """A connected socket on which sending cannot block longer than `timeout_s`."""
    if address.startswith(UNIX):
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.settimeout(timeout_s)
        opened.connect(address.removeprefix(UNIX))
    else:
        parts = urlsplit(address)
        opened = socket.create_connection((parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]), timeout_s)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.settimeout(None)
    seconds, rest = divmod(timeout_s, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(rest * 1e6)))
    return opened


def _read(message: str | bytes) -> dict[str, Any]:
    """A message; openpi's servers send a traceback as a text.

    Raises:
        WireError: it is one, or unreadable.

    """
    if isinstance(message, str):
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        raise WireError(f"it failed: {lines[-1] if lines else 'without a word'}")
    return unpack(message)
