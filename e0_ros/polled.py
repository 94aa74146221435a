"""What is taken from DDS by hand."""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import CallbackGroup


class Polled(CallbackGroup):
    """Entities that no executor waits for."""

    def can_execute(self, entity: Any) -> bool:
        """Never."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing to do."""
