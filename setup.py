"""Packaging for ament_python, colcon and pip. Metadata and entry points are in setup.cfg."""

import configparser
import sys
from pathlib import Path

from setuptools import setup

# A console script of pip lies in bin/ only; ros2 run and launch_ros look in lib/e0_ros. colcon puts it there by
# setup.cfg; a wheel carries these scripts, which run under the interpreter of the prefix that they lie in.
SCRIPT = """#!/bin/sh
'''exec' "$(dirname "$0")/../../bin/python3" "$0" "$@"
' '''
import sys

from {module} import {function}

sys.exit({function}())
"""


def tree(folder):
    """Data files of a folder and its sub-folders, to lie under share/e0_ros."""
    paths = sorted(p for p in Path(folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return [(f"share/e0_ros/{p.parent.as_posix()}", [p.as_posix()]) for p in paths]


def wheel_scripts(folder):
    """Write a script per console entry point; their data_files entry."""
    config = configparser.ConfigParser()
    config.read("setup.cfg")
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    for line in config["options.entry_points"]["console_scripts"].split("\n"):
        if not line:
            continue
        name, target = (part.strip() for part in line.split("="))
        module, function = target.split(":")
        path = Path(folder) / name
        path.write_text(SCRIPT.format(module=module, function=function))
        path.chmod(0o755)
        paths.append(path.as_posix())
    return [("lib/e0_ros", paths)]


setup(
    python_requires=">=3.10,<3.13",  # in setup.cfg it becomes an object that colcon cannot read back
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/e0_ros"]),
        ("share/e0_ros", ["package.xml"]),
        *tree("launch"),
        *tree("config"),
        *(wheel_scripts("build/lib_e0_ros") if "bdist_wheel" in sys.argv else []),
    ],
)
