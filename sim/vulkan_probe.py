"""Asks a Vulkan driver, without a loader, which devices it has and whether SAPIEN can render on them.

python -m sim.vulkan_probe DRIVER.so [PRELOAD.so ...] prints `[{"name": ..., "cpu": ..., "usable": ...}]`. It runs in a
process of its own, because a broken driver may crash the process that loads it.
"""

from __future__ import annotations

import ctypes as c
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CPU = 4  # VK_PHYSICAL_DEVICE_TYPE_CPU
_NEEDED = "VK_KHR_acceleration_structure"
_EXTENSION_BYTES = 260  # VkExtensionProperties: name[256], version


class _Application(c.Structure):
    _fields_ = [("type", c.c_uint32), ("next", c.c_void_p), ("name", c.c_char_p), ("version", c.c_uint32)]
    _fields_ += [("engine", c.c_char_p), ("engine_version", c.c_uint32), ("api", c.c_uint32)]


class _InstanceInfo(c.Structure):
    _fields_ = [("type", c.c_uint32), ("next", c.c_void_p), ("flags", c.c_uint32)]
    _fields_ += [("application", c.POINTER(_Application)), ("layers", c.c_uint32), ("layer_names", c.c_void_p)]
    _fields_ += [("extensions", c.c_uint32), ("extension_names", c.c_void_p)]


def preload(libraries: Sequence[str | Path]) -> None:
    """Load shared libraries in whatever order they depend on each other.

    A library that is already loaded satisfies a later one that needs it by name, so no search path has to be set
    before the process starts.

    Raises:
        OSError: one of them cannot be loaded.

    """
    waiting = [str(path) for path in libraries]
    while waiting:
        failed, error = [], None
        for path in waiting:
            try:
                c.CDLL(path, mode=c.RTLD_GLOBAL)
            except OSError as e:
                failed.append(path)
                error = e
        if error is not None and len(failed) == len(waiting):
            raise error
        waiting = failed


def devices(library: str) -> list[dict[str, Any]]:
    """Devices of a driver.

    SAPIEN 3.0.3 refuses the lavapipe of Mesa 22.3 and 23.2 and takes that of 25.0. What it misses is not documented;
    the extension asked for here tells them apart. A GPU is taken at its word.

    Raises:
        OSError: the library cannot be loaded.
        RuntimeError: it is no Vulkan driver or refuses an instance.

    """
    driver = c.CDLL(library)
    version = c.c_uint32(5)
    if hasattr(driver, "vk_icdNegotiateLoaderICDInterfaceVersion"):
        driver.vk_icdNegotiateLoaderICDInterfaceVersion(c.byref(version))
    address = driver.vk_icdGetInstanceProcAddr
    address.restype, address.argtypes = c.c_void_p, [c.c_void_p, c.c_char_p]
    instance = c.c_void_p()

    def call(name: str, *arguments: Any) -> int:
        pointer = address(instance, name.encode())
        if not pointer:
            raise RuntimeError(f"{library} lacks {name}")
        return int(c.CFUNCTYPE(c.c_int32, *[c.c_void_p] * len(arguments))(pointer)(*arguments))

    application = _Application(0, None, b"e0", 0, b"e0", 0, (1 << 22) | (2 << 12))
    info = _InstanceInfo(1, None, 0, c.pointer(application), 0, None, 0, None)
    if error := call("vkCreateInstance", c.addressof(info), None, c.addressof(instance)):
        raise RuntimeError(f"{library}: vkCreateInstance gives {error}")
    count = c.c_uint32()
    call("vkEnumeratePhysicalDevices", instance, c.addressof(count), None)
    handles = (c.c_void_p * count.value)()
    call("vkEnumeratePhysicalDevices", instance, c.addressof(count), c.addressof(handles))
    return [_device(call, handle or 0) for handle in handles]


def _device(call: Any, handle: int) -> dict[str, Any]:
    properties = (c.c_uint32 * 512)()  # VkPhysicalDeviceProperties: apiVersion, ..., deviceType, deviceName[256]
    call("vkGetPhysicalDeviceProperties", handle, c.addressof(properties))
    name = c.string_at(c.addressof(properties) + 20).decode(errors="replace")
    cpu = properties[4] == _CPU
    return {"name": name, "cpu": cpu, "usable": not cpu or _NEEDED in _extensions(call, handle)}


def _extensions(call: Any, handle: int) -> set[str]:
    count = c.c_uint32()
    call("vkEnumerateDeviceExtensionProperties", handle, None, c.addressof(count), None)
    table = (c.c_char * (_EXTENSION_BYTES * count.value))()
    call("vkEnumerateDeviceExtensionProperties", handle, None, c.addressof(count), c.addressof(table))
    return {c.string_at(c.addressof(table) + _EXTENSION_BYTES * i).decode() for i in range(count.value)}


if __name__ == "__main__":
    preload(sys.argv[2:])
    print(json.dumps(devices(sys.argv[1])))
