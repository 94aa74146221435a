"""Simulators behind the robot's own topics, experts, the FR3 plant and its judge."""
