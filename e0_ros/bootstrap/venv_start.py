"""What every Python start of `.venv` needs to find ROS 2. Set-up copies this file there, beside a .pth file.

The wheels' own .pth sets LD_LIBRARY_PATH, but not AMENT_PREFIX_PATH, and its guard variable is inherited by children
of another environment, whose libraries are not ours. On a ROS 2 install e0_msgs' libraries lie in `.venv/lib`.
"""

import os
import sys


def _prepend(name: str, value: str) -> None:
    rest = [p for p in os.environ.get(name, "").split(os.pathsep) if p and p != value]
    os.environ[name] = os.pathsep.join([value, *rest])


def _start() -> None:
    site_packages = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    library = os.path.join(sys.prefix, "lib")  # noqa: PTH118
    ready = library in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    _prepend("AMENT_PREFIX_PATH", sys.prefix)
    if any(name.startswith("ros_wheels_bootstrapper") for name in os.listdir(site_packages)):  # noqa: PTH208
        if not ready:
            os.environ.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    elif not ready:
        _prepend("LD_LIBRARY_PATH", library)
        os.execv(sys.executable, sys.orig_argv)


_start()
