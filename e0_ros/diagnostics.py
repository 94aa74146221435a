"""A diagnostic_msgs/DiagnosticArray of one status from plain values."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from e0_ros.conversions import to_time

OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR


def diagnostics_msg(
    name: str, level: bytes, message: str, values: Mapping[str, object], now_ns: int
) -> DiagnosticArray:
    """One status; floats are shortened to 4 digits."""
    text = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    status = DiagnosticStatus(level=level, name=name, message=message, hardware_id="")
    status.values = [KeyValue(key=key, value=value) for key, value in text.items()]
    msg = DiagnosticArray(status=[status])
    msg.header.stamp = to_time(now_ns)
    return msg
