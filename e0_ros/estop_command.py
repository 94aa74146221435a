"""`e0 estop`: an emergency stop in a terminal. It sends the heartbeat while it runs: a key, its end, or its loss stops.

It is software on an ordinary computer, beside the arm's own emergency stop and never in its place.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from e0_msgs.msg import ExecutorState
from e0_ros import interfaces
from e0_ros.core.traces import mode_name
from e0_ros.keyboard import Keyboard
from e0_ros.process import run_node

BEAT_S = 0.05
LOOK_S = 0.002
LAST_BEATS = 5
RESET = "r"
HELP = "any key stops the arm; r releases the stop (then arm); Ctrl-C ends, which stops too"


class Estop(Node):
    """`pressed` as long as the arm has to stand."""

    def __init__(self) -> None:
        super().__init__("estop")
        self.pressed, self._shown = False, ""
        topic = interfaces.HEARTBEAT
        self._beats = self.create_publisher(Bool, topic.name, topic.qos.profile())
        self._reset = self.create_client(Trigger, interfaces.RESET_STOP.name)
        state = interfaces.EXECUTOR_STATE
        self.create_subscription(ExecutorState, state.name, self._on_state, state.qos.profile())
        self.create_timer(BEAT_S, self.beat, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def beat(self) -> None:
        """Say that all is well, or that it is not."""
        self._beats.publish(Bool(data=not self.pressed))

    def key(self, key: str) -> None:
        """Stop at once, or release."""
        self.pressed = key != RESET
        self.beat()
        if self.pressed:
            print("stop is pressed", flush=True)
        elif self._reset.service_is_ready():
            self._reset.call_async(Trigger.Request()).add_done_callback(self._on_reset)
        else:
            print("released; no executor is there to be reset", flush=True)

    def _on_reset(self, future: Any) -> None:
        answer = future.result()
        print(f"released; the executor says: {answer.message}", flush=True)

    def _on_state(self, state: ExecutorState) -> None:
        mode = mode_name(state.mode)
        shown = f"{mode}: {state.reason}" if state.reason else mode
        if shown != self._shown:
            self._shown = shown
            print(shown, flush=True)

    def destroy_node(self) -> None:
        """The end is a stop."""
        self.pressed = True
        for _ in range(LAST_BEATS):
            self.beat()
            time.sleep(BEAT_S / LAST_BEATS)
        super().destroy_node()


def watch(node: Estop, stopping: threading.Event) -> None:
    """Beat and look for keys until told to stop, or until the input ends."""
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    print(HELP, flush=True)
    with Keyboard() as keyboard:
        while not stopping.is_set() and not keyboard.ended:
            if key := keyboard.key(enter=True):
                node.key(key)
            executor.spin_once(timeout_sec=LOOK_S)
    executor.shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 estop`. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="e0 estop", description=__doc__, epilog=f"keys: {HELP}")
    parser.parse_args(argv)
    return run_node(Estop, [], watch)


if __name__ == "__main__":
    sys.exit(main())
