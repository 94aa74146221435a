from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgpack", reason="msgpack is not installed (extra [remote])")
websockets = pytest.importorskip("websockets", reason="websockets is not installed (extra [remote])")
from websockets.sync.server import ServerConnection, serve  # noqa: E402

from e0_policy.array_wire import pack, unpack  # noqa: E402
from e0_policy.policy_connection import PolicyConnection, PolicyServerError  # noqa: E402
from tests.e0_policy.policy_servers import serving  # noqa: E402
from tests.faults.scale import scaled  # noqa: E402


def double(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"actions": 2.0 * request["x"]}


def test_a_request_and_its_reply_over_loopback_and_over_a_socket_of_ones_own(tmp_path: Path) -> None:
    for where in ("127.0.0.1:0", f"unix://{tmp_path}/socket"):
        with serving(double, where, policy="doubler") as address:
            connection = PolicyConnection(address)
            assert connection.metadata(10.0)["policy"] == "doubler"
            for i in range(3):
                assert connection.ask({"x": np.array([i, 0.5])})["actions"].tolist() == [2.0 * i, 1.0]
            connection.close()


class Raw:
    """A server of raw messages as openpi's: no numbers; `replies` are what it says to each request."""

    def __init__(self, reply: Any, greeting: Any = None) -> None:
        self._reply, self._greeting = reply, pack({}) if greeting is None else greeting
        self._server = serve(self._talk, "127.0.0.1", 0, compression=None, max_size=None)
        self.address = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _talk(self, connection: ServerConnection) -> None:
        self.connections += 1
        connection.send(self._greeting)
        try:
            for message in connection:
                self._reply(connection, unpack(message))
        except websockets.exceptions.ConnectionClosed:
            return

    def close(self) -> None:
        self._server.shutdown()


def test_no_late_reply_is_taken_for_the_answer_to_another_request(record_property) -> None:
    """Fault matrix, row 15: a server as openpi's, without numbers, that answers a tenth of its requests too late."""
    count, chance, timeout_s = scaled(400, 10_000), random.Random(0), 0.05

    def reply(connection: ServerConnection, request: dict[str, Any]) -> None:
        if request["late"]:
            time.sleep(timeout_s * (1.0 + 0.2 * chance.random()))
        connection.send(pack({"actions": np.array([[request["n"]]])}))

    server, mismatched, answered, lost = Raw(reply), 0, 0, 0
    connection = PolicyConnection(server.address, timeout_s, first_timeout_s=timeout_s)
    for n in range(count):
        try:
            got = connection.ask({"n": n, "late": chance.random() < 0.1})["actions"][0, 0]
            answered, mismatched = answered + 1, mismatched + (got != n)
        except PolicyServerError as error:
            lost += 1
            assert re.search(
                "no reply within 0.05 s|cannot be reached: timed out", str(error)
            )  # the latter: a busy machine
    connection.close()
    server.close()
    record_property("figure", f"{count} requests, {lost} replies too late, {mismatched} mismatched")
    assert mismatched == 0 and lost > count / 20 and answered > count / 2


def test_a_reply_that_nobody_asked_for_costs_the_connection() -> None:
    def twice(connection: ServerConnection, request: dict[str, Any]) -> None:
        for _ in range(2):
            connection.send(pack({"n": request["n"]}))

    server, wrong = Raw(twice), 0
    connection = PolicyConnection(server.address)
    for n in range(20):
        try:
            wrong += connection.ask({"n": n})["n"] != n
        except PolicyServerError as error:
            assert "nobody had asked for" in str(error)
        time.sleep(0.005)  # the second reply is there: without ids nothing else can tell
    assert wrong == 0 and server.connections > 5
    server.close()


def test_a_numbered_reply_to_another_request_is_refused() -> None:
    def stale(connection: ServerConnection, request: dict[str, Any]) -> None:
        connection.send(pack({"e0/request": request["e0/request"] - 1}))

    server = Raw(stale, pack({"e0/request": True}))
    with pytest.raises(PolicyServerError, match="the reply is to request 0, not 1"):
        PolicyConnection(server.address).ask({"x": 1})
    server.close()


def test_an_error_of_the_server_is_told_and_the_next_request_connects_anew() -> None:
    calls = []

    def infer(request: Mapping[str, Any]) -> dict[str, Any]:
        calls.append(request)
        if len(calls) == 1:
            raise KeyError("observation/image")
        return {"actions": np.zeros((1, 1))}

    with serving(infer) as address:
        connection = PolicyConnection(address)
        with pytest.raises(PolicyServerError, match="it failed: KeyError: 'observation/image'"):
            connection.ask({"x": 1})
        assert connection.ask({"x": 1})["actions"].shape == (1, 1)
        connection.close()


@pytest.mark.parametrize(
    ("message", "text"), [(b"\xc1", "not a message"), ("Traceback:\n  boom\n", "it failed: boom"), (pack({}), "")]
)
def test_greetings_of_something_else(message: bytes | str, text: str) -> None:
    server = Raw(lambda *_: None, message)
    if text:
        with pytest.raises(PolicyServerError, match=text):
            PolicyConnection(server.address).metadata()
    else:
        assert PolicyConnection(server.address).metadata() == {}
    server.close()


def test_a_server_that_is_frozen_holds_nobody_longer_than_the_timeout() -> None:
    """It accepts and then reads nothing: neither the greeting nor sending a large request may block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address, begin = f"ws://127.0.0.1:{listener.getsockname()[1]}", time.monotonic()
        with pytest.raises(PolicyServerError, match="cannot be reached"):
            PolicyConnection(address, 0.3).metadata()
    held = threading.Event()
    server = Raw(lambda *_: held.wait(30.0))
    connection = PolicyConnection(server.address, 0.3, 0.3)
    for _ in range(2):
        with pytest.raises(PolicyServerError):
            connection.ask({"image": np.zeros((2000, 2000, 3), np.uint8)})
    assert time.monotonic() - begin < 10.0
    held.set()
    server.close()


def test_nobody_there_is_told_with_the_address_and_a_server_that_comes_up_later_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    connection = PolicyConnection(f"ws://127.0.0.1:{port}")
    with pytest.raises(PolicyServerError, match=rf"127.0.0.1:{port}: cannot be reached"):
        connection.metadata()
    up = threading.Event()

    def later() -> None:
        with serving(double, f"127.0.0.1:{port}"):
            up.wait(30.0)

    timer = threading.Timer(0.5, later)
    timer.start()
    connection.metadata(20.0)
    assert connection.ask({"x": np.ones(1)})["actions"].tolist() == [2.0]
    connection.close()
    up.set()
    timer.join()
