"""From a teleoperated demonstration to a deployed E0 policy, over plain ROS 2 topics."""
