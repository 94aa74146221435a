"""How long before it acts a command must be sent: longer than a message has lately taken.

A controller that gets a command after the time where it branches off the one before would jump from one to the other.
Nothing at the sender can call such a command back, so the lead has to cover the delay: at least `lead_ms`, and more
as soon as messages are seen to take long, as on an overloaded machine. It shrinks again slowly; arming starts from
what was seen last, not from how slow a bench is while its nodes start. What is sent meanwhile is legal at any delay
up to the lead; a plan that only goes on is so at any delay up to `lead + span - message period`, since the next
message repeats it knot for knot.
"""

from __future__ import annotations

_WORK_NS = 6_000_000  # from the decision to the message's sending
_MARGIN = 1.5
_DECAY_NS = 30_000_000_000
_RECENT_NS = 1_000_000_000
LEAST_TRANSPORT_NS = 2_000_000


class Lead:
    """Leads for plans and for braking, from delays of messages as they are measured."""

    def __init__(self, plan_ns: int, brake_ns: int, most_ns: int) -> None:
        self._plan_ns, self._brake_ns, self._most_ns = plan_ns, brake_ns, most_ns
        self._worst_ns, self._seen_ns = 0, 0
        self._since_ns, self._recent_ns, self._before_ns = 0, 0, 0

    def observe(self, delay_ns: int, now_ns: int) -> None:
        """Take one message's time on its way; below 0 the clocks are at fault and it counts as none."""
        passed_ns = min(max(now_ns - self._seen_ns, 0), _DECAY_NS)
        self._seen_ns = now_ns
        faded_ns = self._worst_ns - self._worst_ns * passed_ns // _DECAY_NS
        delay_ns = min(delay_ns, 2 * self._most_ns)
        self._worst_ns = max(faded_ns, delay_ns)
        if now_ns >= self._since_ns + _RECENT_NS:
            self._before_ns = self._recent_ns if now_ns < self._since_ns + 2 * _RECENT_NS else 0
            self._since_ns, self._recent_ns = now_ns, 0
        self._recent_ns = max(self._recent_ns, delay_ns)

    def begin(self) -> None:
        """Start from the worst of the last second or two: what was before is forgotten."""
        self._worst_ns = max(self._recent_ns, self._before_ns)

    @property
    def transport_ns(self) -> int:
        """What a message is to be granted for its way."""
        return max(LEAST_TRANSPORT_NS, int(_MARGIN * self._worst_ns))

    @property
    def trouble(self) -> str:
        """That no lead is long enough, in words; empty while one is."""
        if self.transport_ns + _WORK_NS <= self._most_ns:
            return ""
        return f"messages take up to {self._worst_ns / 1e6:.0f} ms; the longest lead is {self._most_ns / 1e6:.0f} ms"

    @property
    def plan_ns(self) -> int:
        """Lead of a plan."""
        return max(self._plan_ns, self._needed_ns)

    @property
    def brake_ns(self) -> int:
        """Lead of braking."""
        return max(self._brake_ns, self._needed_ns)

    @property
    def _needed_ns(self) -> int:
        return min(self.transport_ns + _WORK_NS, self._most_ns)
