"""A simulated robot: ros2 launch e0_ros sim.launch.py simulator:=fr3_plant"""

from launch import LaunchDescription

from e0_ros.ros_launch import description


def generate_launch_description() -> LaunchDescription:
    """The graph `sim` of `e0_ros.graph`."""
    return description("sim")
