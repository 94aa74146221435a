"""Pairs cameras, joint states and gripper states into observations, live and when recordings are converted.

The reference camera leads: every distinct reference stamp is answered exactly once, in order, with an `Observation`
or with a `Stale` that names the stream at fault.

* Other views: the image nearest to the stamp, within `tolerance_ms` (unset: 0.6 camera periods, because cameras that
  run free of each other lie up to half a one apart). It is known once one at or after the stamp has come; live, one
  that lies at most 0.4 camera periods before the stamp is taken at once, because the next one cannot be nearer unless
  the camera departs from its rate by a fifth.
* Joint positions: linear interpolation to the stamp between two samples, never the latest one.
* Gripper: the latest opening at or before the stamp.

Live, a stream is waited for until its bound (`patience_periods` of its rate plus `slack_ms`) after the reference
image's arrival. In lock-step and in conversion nothing expires: every stream is waited for until it has passed the
stamp, so that the same data give the same observations whatever the delays between the streams.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from e0_policy.types import FloatArray, ImageArray, Observation, Stale
from e0_ros.core.latency import disagreement
from e0_ros.core.pairing import GRIPPER, JOINTS, Pairing, SyncConfig, Wait
from e0_ros.core.stamped_buffer import Sample
from e0_ros.core.stream import NS_PER_MS, NS_PER_S, Stream

JUMP_NS = NS_PER_S
"""Stamps (lock-step) or the clock (live) that go back further than this mean a restarted recording or a reset."""

Result = Observation | Stale


@dataclass(order=True)
class _Pending:
    """A reference image not yet answered; `verdict` is its answer if it is known already."""

    stamp_ns: int
    image: Any = field(compare=False)
    arrived_ns: int = field(compare=False)
    verdict: Stale | None = field(compare=False, default=None)
    read: bool = field(compare=False, default=False)


class ObservationSync:
    """The pairing core. Every `add_*` and `poll` returns the answers that became known, in order of their stamps.

    Values may be given as they came (a message, bytes): `read_*` turns one into numbers only when it is used, and a
    `ValueError` from it makes the answer a `Stale` with its text.

    Args:
        config: streams and bounds.
        read_image: `(view, value)` to `uint8 (height, width, 3)` RGB.
        read_joints: value to positions `(joints,)` [rad].
        read_gripper: value to an opening in [0, 1].

    """

    def __init__(
        self,
        config: SyncConfig,
        read_image: Callable[[str, Any], ImageArray] = lambda view, image: image,
        read_joints: Callable[[Any], FloatArray] = np.asarray,
        read_gripper: Callable[[Any], float] = float,
    ) -> None:
        known_ms = max((*config.camera_latency_ms, 0.0))  # stamps count from the exposure, images come that much later

        def stream(name: str, rate_hz: float, late_ms: float = 0.0) -> Stream[Any]:
            return Stream(name, rate_hz, config.patience_periods, config.slack_ms + late_ms)

        self._config = config
        self._reference, *self._others = config.views
        self.streams = {name: stream(name, config.camera_rate_hz, known_ms) for name in config.views}
        self.streams[JOINTS] = self._joints = stream(JOINTS, config.joint_rate_hz)
        self.streams[GRIPPER] = self._gripper = stream(GRIPPER, config.gripper_rate_hz)
        self._read_image, self._read_joints, self._read_gripper = read_image, read_joints, read_gripper
        self._pairing = Pairing(config)
        self._pending: list[_Pending] = []
        self._seen: deque[int] = deque(maxlen=256)
        self._released: list[Result] = []
        self._slack_ns = round(config.slack_ms * NS_PER_MS)
        self._now_ns: int | None = None
        self._start_ns: int | None = None
        self._passed_ns: int | None = None
        self._warned_ns: int | None = None
        self.answered: Counter[str] = Counter()
        self.last: Result | None = None

    @property
    def waiting(self) -> tuple[int, str] | None:
        """Oldest reference stamp without an answer and the stream that it waits for."""
        if not self._pending:
            return None
        answer = self._answer(self._pending[0], self._now_ns or 0)
        return (self._pending[0].stamp_ns, answer.stream) if isinstance(answer, Wait) else None

    def add_image(
        self, view: str, stamp_ns: int, image: Any, now_ns: int, fingerprint: int | None = None
    ) -> list[Result]:
        """Take an image; `fingerprint` is a hash of its pixels, None if frozen pixels are not to be noticed."""
        stream = self.streams[view]
        stamp_ns = self._config.captured_ns(view, stamp_ns)
        stream.latency.add(stamp_ns, now_ns)
        if view == self._reference:
            self._add_reference(stream, stamp_ns, image, now_ns)
        elif self._credible(stream, stamp_ns, now_ns):
            stream.add(stamp_ns, image, now_ns)
        if fingerprint is not None:
            stream.watch_pixels(stamp_ns, fingerprint)
        return self._advance(now_ns)

    def add_joints(self, stamp_ns: int, positions: Any, now_ns: int) -> list[Result]:
        """Take joint positions `(joints,)` [rad] measured at `stamp_ns`, or something that `read_joints` reads."""
        if self._credible(self._joints, stamp_ns, now_ns):
            self._joints.add(stamp_ns, positions, now_ns)
        return self._advance(now_ns) if self._pending or self._released else []

    def add_gripper(self, stamp_ns: int, opening: Any, now_ns: int) -> list[Result]:
        """Take a gripper opening in [0, 1] measured at `stamp_ns`, or something that `read_gripper` reads."""
        if self._credible(self._gripper, stamp_ns, now_ns):
            self._gripper.add(stamp_ns, opening, now_ns)
        return self._advance(now_ns)

    @property
    def disagreement(self) -> str:
        """Live: which camera's clock is off, as far as arrivals tell; empty if none is."""
        if self._config.lockstep:
            return ""
        latencies = {view: self.streams[view].latency for view in self._config.views}
        return disagreement(latencies, round(self._config.max_clock_offset_ms * NS_PER_MS))

    def poll(self, now_ns: int) -> list[Result]:
        """Answer what has waited long enough, and report a silent reference camera once a second (stamp: now)."""
        if self._config.lockstep:
            return self._advance(now_ns)
        self._notice_jump(self._now_ns, now_ns)
        reference, start_ns = self.streams[self._reference], now_ns if self._start_ns is None else self._start_ns
        overdue = self._warned_ns is None or now_ns - self._warned_ns >= NS_PER_S
        if not self._pending and overdue and reference.silent(now_ns, start_ns):
            self._warned_ns = now_ns
            self._released.append(reference.stale(now_ns, now_ns, "missing: no fresh image"))
        return self._advance(now_ns)

    def clear(self, reason: str, now_ns: int) -> None:
        """Forget all samples; reference images that still wait are answered with `Stale` by the next call."""
        for pending in self._pending:
            self._released.append(Stale(pending.stamp_ns, self._reference, reason, now_ns - pending.stamp_ns))
        self._pending.clear()
        self._seen.clear()
        for stream in self.streams.values():
            stream.clear()
        self._start_ns, self._passed_ns, self._warned_ns = now_ns, None, None

    def _add_reference(self, stream: Stream[Any], stamp_ns: int, image: Any, now_ns: int) -> None:
        credible, age_ns = self._credible(stream, stamp_ns, now_ns), now_ns - stamp_ns
        if credible:
            stream.add(stamp_ns, None, now_ns)
        if stamp_ns in self._seen:
            return
        self._seen.append(stamp_ns)
        reason = None
        if not credible:
            reason = f"skewed: its stamp lies {-age_ns / NS_PER_MS:.1f} ms in the future of this clock"
        elif not self._config.lockstep and age_ns > stream.bound_ns:
            reason = (
                f"late: {age_ns / NS_PER_MS:.1f} ms old on arrival; allowed is {stream.bound_ns / NS_PER_MS:.1f} ms"
            )
        elif self._passed_ns is not None and stamp_ns < self._passed_ns:
            reason = "late: a newer image has been answered"
        verdict = None if reason is None else Stale(stamp_ns, stream.name, reason, age_ns)
        insort(self._pending, _Pending(stamp_ns, image, now_ns, verdict))

    def _credible(self, stream: Stream[Any], stamp_ns: int, now_ns: int) -> bool:
        """Notice time that went back, and refuse (live) a stamp that lies in the future."""
        if self._config.lockstep:
            self._notice_jump(stream.newest_ns, stamp_ns)
            return True
        self._notice_jump(self._now_ns, now_ns)
        self._now_ns = now_ns
        if stamp_ns - now_ns <= self._slack_ns:
            return True
        stream.received += 1
        stream.dropped += 1
        return False

    def _notice_jump(self, before_ns: int | None, after_ns: int) -> None:
        if before_ns is not None and after_ns < before_ns - JUMP_NS:
            self.clear(f"time went back by {(before_ns - after_ns) / NS_PER_S:.3f} s", after_ns)

    def _advance(self, now_ns: int) -> list[Result]:
        self._now_ns = now_ns
        if self._start_ns is None:
            self._start_ns = now_ns
        results, self._released = self._released, []
        while self._pending:
            answer = self._answer(self._pending[0], now_ns)
            if isinstance(answer, Wait):
                self._read_ahead(self._pending[0])
                break
            self._pass(self._pending.pop(0))
            results.append(answer)
        for result in results:
            self.last = result
            self.answered[result.stream if isinstance(result, Stale) else ""] += 1
        return results

    def _pass(self, pending: _Pending) -> None:
        """Forget what no later reference stamp needs."""
        if pending.verdict is not None:
            return
        self._passed_ns = pending.stamp_ns
        for name in (*self._others, JOINTS, GRIPPER):
            self.streams[name].buffer.drop_before(pending.stamp_ns)

    def _answer(self, pending: _Pending, now_ns: int) -> Result | Wait:
        if pending.verdict is not None:
            return pending.verdict
        waited_ns = -1 if self._config.lockstep else now_ns - pending.arrived_ns
        clock_ns = None if self._config.lockstep else now_ns
        parts: dict[str, Any] = {}
        for name, stream in self.streams.items():
            parts[name] = self._pairing.find(stream, pending.stamp_ns, clock_ns, waited_ns >= stream.bound_ns)
        stale = next((part for part in parts.values() if isinstance(part, Stale)), None)
        wait = next((part for part in parts.values() if isinstance(part, Wait)), None)
        if wait is not None and (stale is None or self._config.lockstep):
            return wait
        return stale or self._read(pending, parts, clock_ns)

    def _read_ahead(self, pending: _Pending) -> None:
        """Use the waiting to read the reference image, so that less is left to do when the other streams are there."""
        if not pending.read and pending.verdict is None:
            with suppress(ValueError):
                pending.image, pending.read = self._read_image(self._reference, pending.image), True

    def _read(self, pending: _Pending, parts: dict[str, Any], now_ns: int | None) -> Result:
        stamp_ns, name = pending.stamp_ns, ""
        views, skews = {}, {}
        try:
            for name in self._config.views:
                sample = Sample(stamp_ns, pending.image) if name == self._reference else parts[name]
                ready = name == self._reference and pending.read
                views[name] = sample.value if ready else self._read_image(name, sample.value)
                skews[name] = sample.stamp_ns - stamp_ns
            name = JOINTS
            joints = self._joints.buffer.interpolate(stamp_ns, self._read_joints)
            name = GRIPPER
            opening = self._read_gripper(parts[GRIPPER].value)
        except ValueError as error:
            return self.streams[name].stale(stamp_ns, now_ns, f"unreadable: {error}")
        if joints is None:
            raise AssertionError("joint positions were found but cannot be interpolated")
        return Observation(
            stamp_ns=stamp_ns,
            views=views,
            joint_positions=joints.value,
            gripper_opening=opening,
            view_skew_ns=skews,
            joint_skew_ns=joints.nearest_ns,
            gripper_age_ns=stamp_ns - parts[GRIPPER].stamp_ns,
        )
