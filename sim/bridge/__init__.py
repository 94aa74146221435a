"""Node `bridge`: a simulator behind the robot's own topics. The only ROS code for simulators.

Real time or lock-step as `ARCHITECTURE.md` ("Time") says:

    python -m sim.bridge --ros-args -p simulator:=fr3_plant -p mode:=lockstep -p judge:=true
"""

from sim.bridge.node import Bridge, main
from sim.bridge.settings import BridgeConfig, make_adapter

__all__ = ["Bridge", "BridgeConfig", "main", "make_adapter"]
