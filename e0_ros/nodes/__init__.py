"""Thin ROS 2 shells over `e0_ros.core`."""
