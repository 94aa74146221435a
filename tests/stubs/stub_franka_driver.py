"""franka_ros2 around an arm that stands: what `sim.bridge.franka` serves, with faults that a test asks for on /stub.

`offset 40`: the clock of this host is 40 ms behind. `payload 0.5`: somebody told the arm another payload. `inactive`:
the controller was deactivated while another moves the arm. `refuse`: payloads are refused. `dies`, `comes`: the driver.
`states_end 0.5`: errors end the robot states from now on, which come again 0.5 s after the controllers. Any other word
is an error, as on /e0/sim/fault.
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

from rclpy.node import Node
from std_msgs.msg import String

from e0_ros.core.arm_setup import Payload
from e0_ros.core.fci import RobotMode
from e0_ros.process import run_node
from sim.bridge.franka import FrankaFace


class Rig:
    fault = ""
    offset_ms = 0.0

    @property
    def now_ns(self) -> int:
        return time.time_ns() - round(self.offset_ms * 1e6)

    def halt(self, reason: str) -> None:
        self.fault = reason

    def go_on(self) -> None:
        self.fault = ""


class StubDriver(Node):
    def __init__(self) -> None:
        super().__init__("stub_driver")
        self.rig, self.config = Rig(), SimpleNamespace(controller="joint_trajectory")
        self.face = FrankaFace(self, "jazzy")
        self.create_subscription(String, "/stub", self.on_word, 10)
        self.silent_s, self.late_s = 0.0, 0.0
        self.create_timer(0.01, self.publish)

    def publish(self) -> None:
        if not self.face.fci.telling:
            self.silent_s = time.monotonic()
        elif time.monotonic() - self.silent_s >= self.late_s:
            self.face.publish()

    def on_word(self, msg: String) -> None:
        what, _, number = msg.data.partition(" ")
        fci = self.face.fci
        if what == "offset":
            self.rig.offset_ms = float(number)
        elif what == "payload":
            fci.payload = Payload(float(number), (0.0, 0.0, 0.0))
        elif what == "inactive":
            fci.controller = False
        elif what == "refuse":
            fci.set_load = lambda payload: "libfranka: Set Load command rejected: this is no payload!"
        elif what == "dies":
            self.face.silent = True
        elif what == "comes":
            self.face.silent, fci.mode, fci.controller = False, RobotMode.IDLE, False
            fci.payload, fci.thresholds = Payload(0.0, (0.0, 0.0, 0.0)), {}
        elif what == "states_end":
            fci.states_end, self.late_s = True, float(number)
        else:
            self.face.fail(what)
        print(f"{what}: {fci.mode.name}", flush=True)


if __name__ == "__main__":
    sys.exit(run_node(StubDriver))
