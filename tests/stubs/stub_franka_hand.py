"""A stand-in of franka_gripper: its actions, and finger states at 15 Hz, with an object of 30 mm between the fingers.

As the original it accepts every goal at once and stops the fingers when a goal is cancelled. Every goal is printed with
its width and tolerances, and how many run with it.
"""

from __future__ import annotations

import sys
import threading
import time

from franka_msgs.action import Grasp, Homing, Move
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState

from e0_ros import interfaces
from e0_ros.process import run_node

OBJECT_M, OPEN_M, STEP_S = 0.03, 0.08, 0.02


class StubHand(Node):
    def __init__(self) -> None:
        super().__init__("franka_gripper")
        self.width_m, self.running, self.lock = 0.06, 0, threading.Lock()
        group = ReentrantCallbackGroup()
        for kind, name in ((Homing, "homing"), (Move, "move"), (Grasp, "grasp")):
            ActionServer(self, kind, f"/franka_gripper/{name}", lambda h, n=name, k=kind: self.execute(n, k, h),
                         callback_group=group, cancel_callback=lambda _: CancelResponse.ACCEPT)  # fmt: skip
        topic = interfaces.GRIPPER_STATES
        self.states = self.create_publisher(JointState, topic.name, topic.qos.profile())
        self.create_timer(1 / 15, self.publish, callback_group=group)

    def publish(self) -> None:
        names = ["fr3_finger_joint1", "fr3_finger_joint2"]
        self.states.publish(JointState(name=names, position=[self.width_m / 2] * 2))

    def execute(self, name, kind, handle):
        goal = handle.request
        width = OPEN_M if name == "homing" else goal.width
        inner, outer = (goal.epsilon.inner, goal.epsilon.outer) if name == "grasp" else (0.0, 0.0)
        with self.lock:
            self.running += 1
            print(f"{name} {width:.3f} {inner:.3f} {outer:.3f} {self.running} running", flush=True)
        try:
            return self.drive(name, kind, handle, width, inner, outer)
        finally:
            with self.lock:
                self.running -= 1

    def drive(self, name, kind, handle, width, inner, outer):
        result = kind.Result()
        speed = getattr(handle.request, "speed", 0.0) or 0.2
        while abs(self.width_m - width) > 1e-6:
            if handle.is_cancel_requested:
                handle.canceled()
                return result
            step = max(-speed * STEP_S, min(speed * STEP_S, width - self.width_m))
            blocked = name == "grasp" and self.width_m + step <= OBJECT_M
            self.width_m = OBJECT_M if blocked else self.width_m + step
            time.sleep(STEP_S)
            if blocked:
                break
        result.success = name != "grasp" or width - inner < self.width_m < width + outer
        handle.succeed() if result.success else handle.abort()
        return result


def turn(node, stopping) -> None:
    executor = MultiThreadedExecutor(4)
    executor.add_node(node)
    while not stopping.is_set():
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()


if __name__ == "__main__":
    sys.exit(run_node(StubHand, None, turn))
