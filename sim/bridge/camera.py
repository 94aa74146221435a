"""fake_camera: publishes what realsense2_camera would, of cameras that are not there, with faults on request.

Topics, quality of service, encoding and frames are realsense2_camera's (4.58.2) with `camera_namespace:=cameras`:
images `rgb8`, CameraInfo with every image, the cameras' places on /tf_static. `e0 camera fake` runs it alone,
`fake_cameras:=true` in a graph of the bench.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from e0_policy.embodiment import load_embodiment
from e0_ros import interfaces
from e0_ros.config import add_arguments, declare_parameters, from_arguments, to_mapping
from e0_ros.conversions import to_time
from e0_ros.core.camera_model import FLANGE, camera_profile
from e0_ros.process import run_node
from sim.bridge.outputs import camera_info_msg, image_msg, transform_msg
from sim.fake_camera import FakeCameraConfig, Frame, Plan, pictures
from sim.fr3_plant import made_up_camera

WAKE_S = 0.2


class FakeCamera(Node):
    """Sends every frame of the plans when it is due. A machine that is too slow sends late."""

    def __init__(self) -> None:
        super().__init__("fake_camera")
        config = declare_parameters(self, FakeCameraConfig)
        width, height, _ = camera_profile(config.profile)
        base = load_embodiment(config.embodiment).base_frame
        frames = {"base": base, "flange": base.removesuffix("link0") + FLANGE}
        self._plans = [Plan(config, i) for i in range(len(config.views))]
        self._pictures = [pictures(width, height, i) for i in range(len(config.views))]
        models = {view: made_up_camera(view, width, height) for view in config.views}
        self._images: list[tuple[Any, Image]] = []
        self._infos: list[tuple[Any, CameraInfo]] = []
        for view, model in models.items():
            self._images.append((self._publisher(interfaces.camera_topic(view)), image_msg(view, width, height)))
            self._infos.append((self._publisher(interfaces.camera_info_topic(view)), camera_info_msg(view, model)))
        self._transforms = self._publisher(interfaces.TF_STATIC)
        now_ns = time.time_ns()
        told = [
            transform_msg(interfaces.optical_frame(view), model, frames[model.parent], now_ns)
            for view, model in models.items()
        ]
        self._transforms.publish(TFMessage(transforms=told))

    def _publisher(self, topic: interfaces.Topic) -> Any:
        return self.create_publisher(interfaces.message_class(topic.type), topic.name, topic.qos.profile())

    def run(self, stop: threading.Event) -> None:
        """Send until `stop`."""
        start_ns = time.time_ns()
        due: list[tuple[int, int, int, Frame]] = []
        for view in range(len(self._plans)):
            self._plan_next(due, view, 0)
        while due and not stop.is_set():
            sent_ns, view, k, frame = due[0]
            wait_s = (start_ns + sent_ns - time.time_ns()) / 1e9
            if wait_s > 0:
                time.sleep(min(wait_s, WAKE_S))
                continue
            heapq.heappop(due)
            self._send(view, frame, start_ns)
            self._plan_next(due, view, k + 1)

    def _plan_next(self, due: list[tuple[int, int, int, Frame]], view: int, k: int) -> None:
        while (frame := self._plans[view].frame(k)) is None:
            k += 1
        heapq.heappush(due, (frame.sent_ns, view, k, frame))

    def _send(self, view: int, frame: Frame, start_ns: int) -> None:
        (publisher, image), (infos, info) = self._images[view], self._infos[view]
        image.header.stamp = info.header.stamp = to_time(start_ns + frame.stamp_ns)
        picture = self._pictures[view][frame.picture]
        np.frombuffer(image.data, np.uint8).reshape(picture.shape)[:] = picture
        publisher.publish(image)
        infos.publish(info)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run_node(FakeCamera, args, lambda node, stop: node.run(stop))


def command(argv: Sequence[str] | None = None) -> int:
    """`e0 camera fake`: run the node with settings from the command line, until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="e0 camera fake",
        description="RealSense cameras without the hardware, and what goes wrong with them; until Ctrl-C.",
        epilog="example: e0 camera fake --drop-share 0 0.2 --clock-offset-ms 0 40   and beside it: "
        "e0 doctor --only streams",
    )
    add_arguments(parser, FakeCameraConfig)
    chosen = to_mapping(from_arguments(FakeCameraConfig, parser.parse_args(argv)))
    words = [f"{name}:={value}" for name, value in chosen.items()]
    return main(["--ros-args", *(word for pair in words for word in ("-p", pair))])


if __name__ == "__main__":
    sys.exit(main())
