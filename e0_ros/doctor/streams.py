"""Check of the sensor streams of a running graph, by the verdict that recorded takes get."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from e0_policy.types import FloatArray
from e0_ros.core.grading import Flag, grade, nearest_ns
from e0_ros.core.pairing import SyncConfig
from e0_ros.core.take import Take
from e0_ros.doctor.finding import Bench, Finding, green, grey, red
from e0_ros.doctor.machine import Machine

CURES = {
    "missing": "start its driver; `ros2 topic list` shows its name, which must be /cameras/<view>/color/image_raw",
    "gap": "USB bandwidth and power (`e0 doctor --only usb`), a reliable QoS, RMW and its shared memory",
    "rate": "camera profile 640x480x30, auto exposure priority off in dim light, USB 3, fewer raw subscribers",
    "skew": "same profile on all cameras; a fixed exposure; global_time_enabled true; else a larger tolerance_ms",
    "clock": "synchronise the clocks of all hosts (`e0 doctor --only clock`); global_time_enabled true on the cameras",
    "late": "a reliable QoS over Wi-Fi, RMW and its shared memory, CPU governor, fewer raw subscribers",
    "frozen": "restart the camera's driver (initial_reset:=true); another cable or port",
}
"""By kind of flag (`e0_ros.core.grading.KINDS`, and `late`)."""
_TAIL = 99.0


def streams(machine: Machine, bench: Bench) -> Finding:
    """Rates, gaps, skew, frozen pictures and stamps of cameras, joints and gripper."""
    config = bench.streams()
    take = machine.listen(config, bench.measure_s)
    if take is None or not any(len(samples.stamps_ns) for samples in take.streams.values()):
        return grey(
            "no camera or joint topic is published here", "start the graph, then `e0 doctor --measure` beside it"
        )
    seen = _figures(take, config)
    flags = [flag for flag in grade(take, config) if flag.kind in CURES]
    flags += [*_late(take, config), *_disagreeing(take, config)]
    if not flags:
        return green(seen)
    return red(f"{'; '.join(map(str, flags))}. Measured: {seen}", CURES[flags[0].kind])


def _latency_ms(take: Take, view: str) -> FloatArray:
    """Per image of a view how long after its stamp it was heard [ms]; empty if there is none."""
    samples = take.streams.get(view)
    return np.empty(0) if samples is None else (samples.received_ns - samples.stamps_ns) / 1e6


def _late(take: Take, config: SyncConfig) -> Iterator[Flag]:
    """Views whose images come so unevenly that the sync waits in vain for some of them."""
    bound_ms = 1e3 / config.camera_rate_hz + config.slack_ms
    for view in config.views:
        latency = _latency_ms(take, view)
        if len(latency) < 2 or (spread := float(np.percentile(latency, _TAIL) - latency.min())) <= bound_ms:
            continue
        text = f"images come {spread:.0f} ms (p99) later than the fastest; allowed are {bound_ms:.0f} ms"
        yield Flag("late", view, text, spread, bound_ms)


def _disagreeing(take: Take, config: SyncConfig) -> Iterator[Flag]:
    """Views whose clock is not the reference's: pairs cannot tell, if it is off by a whole period."""
    least = {view: float(latency.min()) for view in config.views if len(latency := _latency_ms(take, view))}
    reference, bound_ms = least.get(config.views[0]), config.max_clock_offset_ms
    for view, latency_ms in least.items() if reference is not None and bound_ms else ():
        if abs(apart := latency_ms - float(reference or 0.0)) > bound_ms:
            text = f"its least latency is {abs(apart):.0f} ms {'above' if apart > 0 else 'below'} that of "
            text += f"{config.views[0]}; allowed are {bound_ms:.0f} ms"
            yield Flag("clock", view, text, abs(apart), bound_ms)


def _figures(take: Take, config: SyncConfig) -> str:
    words = []
    for name, samples in take.streams.items():
        stamps = np.unique(samples.stamps_ns)
        if len(stamps) > 1:
            words.append(f"{name} {(len(stamps) - 1) * 1e9 / (stamps[-1] - stamps[0]):.1f} Hz")
    latencies = {view: latency for view in config.views if len(latency := _latency_ms(take, view))}
    words += [f"{v} {np.median(ms):.0f} ms old (p99 {np.percentile(ms, _TAIL):.0f} ms)" for v, ms in latencies.items()]
    reference = take.streams.get(config.views[0])
    for view in config.views[1:]:
        other = take.streams.get(view)
        if reference is not None and other is not None and len(reference.stamps_ns) and len(other.stamps_ns):
            skew = nearest_ns(np.unique(reference.stamps_ns), np.unique(other.stamps_ns)) / 1e6
            words.append(f"skew of {view} {np.median(skew):.1f} ms, p99 {np.percentile(skew, 99):.1f} ms")
    return ", ".join(words)
