"""Demonstrations with a GELLO leader arm: ros2 launch e0_ros teleop.launch.py robot_ip:=ADDRESS gello:=FILE"""

from launch import LaunchDescription

from e0_ros.ros_launch import description


def generate_launch_description() -> LaunchDescription:
    """The graph `teleop` of `e0_ros.graph`."""
    return description("teleop")
