"""A policy on the real arm: ros2 launch e0_ros franka.launch.py robot_ip:=ADDRESS checkpoint:=PATH"""

from launch import LaunchDescription

from e0_ros.ros_launch import description


def generate_launch_description() -> LaunchDescription:
    """The graph `franka` of `e0_ros.graph`."""
    return description("franka")
