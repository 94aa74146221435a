"""A client of a graph on a busy machine, where discovery takes its time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402

from e0_msgs.msg import RecorderState  # noqa: E402
from e0_ros import interfaces  # noqa: E402
from e0_ros.core.arm_session import NOT_READY  # noqa: E402
from e0_ros.graph_client import GraphCallError, GraphClient  # noqa: E402


@pytest.fixture
def bridge(ros: None) -> Iterator[Any]:
    """A simulator that can be reset."""
    node, service = rclpy.create_node("bridge"), interfaces.RESET_SIM
    node.create_service(interfaces.message_class(service.type), service.name, lambda _, response: response)
    yield node
    node.destroy_node()


def test_a_service_whose_client_has_not_found_it_yet_is_there(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(bridge)
    with closing(GraphClient()) as client:
        client.wait_for(interfaces.RESET_SIM)
        for service in (interfaces.RESET_SIM, interfaces.RESET_EXPERT, interfaces.HOME):
            monkeypatch.setattr(client._client(service), "service_is_ready", lambda: False)
        assert client.has(interfaces.RESET_SIM)
        assert not client.has(interfaces.RESET_EXPERT) and not client.has(interfaces.HOME)
    executor.shutdown()


def test_what_nobody_serves_is_named(ros: None) -> None:
    with closing(GraphClient(timeout_s=0.5)) as client:
        with pytest.raises(GraphCallError, match=r"bridge does not serve /e0/sim/reset; is it running"):
            client.call(interfaces.RESET_SIM)
        with pytest.raises(GraphCallError, match=r"not up within 0 s: bridge .*is the graph running"):
            client.wait_for(interfaces.RESET_SIM)


def test_a_first_take_says_how_long_the_disk_will_last_once_it_can_tell(ros: None) -> None:
    with closing(GraphClient()) as client:
        client.recorder = RecorderState(mode=RecorderState.RECORDING, duration=0.5, bytes=10**6)
        assert math.isnan(client.status("", math.nan).bytes_per_s)
        client.recorder = RecorderState(mode=RecorderState.RECORDING, duration=4.0, bytes=10**8)
        assert client.status("", math.nan).bytes_per_s == client.status("", 1.0).bytes_per_s == 25e6
        client.recorder = RecorderState(mode=RecorderState.IDLE, duration=4.0, bytes=10**8)
        assert client.status("", 1.0).bytes_per_s == 1.0


REFUSED, ARMED = SimpleNamespace(success=False, message="the reason"), SimpleNamespace(success=True, message="")


@pytest.mark.parametrize(
    ("set_", "value"),
    [("arm_fault", "the user stop is pressed: release it, then recover"), ("_mode", "STOPPED: stopped on request")],
)
def test_an_arm_that_somebody_must_see_to_first_is_asked_for_once(
    ros: None, monkeypatch: pytest.MonkeyPatch, set_: str, value: str
) -> None:
    with closing(GraphClient(timeout_s=2.0)) as client:
        asked: list[Any] = []
        monkeypatch.setattr(client, "request", lambda *_, **__: asked.append(1) or REFUSED)
        setattr(client, set_, value)
        with pytest.raises(GraphCallError, match="chunk_executor did not arm: the reason"):
            client.arm(Time())
        assert len(asked) == 1


def test_an_arm_that_is_being_made_ready_or_comes_to_rest_is_waited_for_until_somebody_leaves(
    ros: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(GraphClient(timeout_s=60.0)) as client:
        for fault in ("", f"{NOT_READY}; 2 of 5: activate the hardware"):
            client.arm_fault, replies = fault, [ARMED, REFUSED, REFUSED]
            monkeypatch.setattr(client, "request", lambda *_, replies=replies, **__: replies.pop())
            client.arm(Time())
            assert not replies

        def leave(*_: Any, **__: Any) -> Any:
            client.leaving = True
            return REFUSED

        monkeypatch.setattr(client, "request", leave)
        with pytest.raises(GraphCallError, match="interrupted"):
            client.arm(Time())


def test_who_leaves_while_the_arm_is_brought_somewhere_stops_it(ros: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(GraphClient(timeout_s=60.0)) as client:
        called: list[Any] = []

        def leave(service: Any, **_: Any) -> None:
            called.append(service)
            client.leaving = True

        monkeypatch.setattr(client, "call", leave)
        client._session_values = {"ended": "3"}
        with pytest.raises(GraphCallError, match="interrupted: the executor is stopped; /e0/reset_stop, then arm"):
            client.bring(interfaces.RECOVER)
        assert called == [interfaces.RECOVER, interfaces.STOP]
        client._session_values = {}
        with pytest.raises(GraphCallError, match="interrupted; /e0/arm/home was not begun"):
            client.bring(interfaces.HOME)
        assert len(called) == 2
