"""A bag like the recorder's, drawn instead of recorded: for the conversion's tests and its benchmark."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from e0_policy.embodiment import load_embodiment
from e0_policy.types import FloatArray, ImageArray
from e0_ros.core.bag_writer import BagWriter
from e0_ros.core.definitions import installed
from e0_ros.core.image_codec import COMPRESSED_IMAGE, IMAGE, compress
from e0_ros.core.joint_names import gripper_opening
from e0_ros.core.recorder_config import BagConfig
from e0_ros.interfaces import (
    ACTION_CHUNK,
    CLOCK,
    EPISODE_EVENT,
    EXECUTOR_STATE,
    GRIPPER_STATES,
    JOINT_STATES,
    OBSERVATION,
    SHADOW_CHUNK,
    SIM_STATE,
    Qos,
    Topic,
    camera_topic,
)

MS = 1_000_000
START_NS = 1_000_000_000_000
ROWS, ROW_NS, PLAN_NS = 20, 50 * MS, 500 * MS


@dataclass(frozen=True)
class SyntheticEpisode:
    """An episode of `seconds`: the arm follows a sine, plans come every 500 ms, all rates as on the real bench.

    `lockstep` puts cameras, gripper and observations on the ticks of 50 ms.
    """

    name: str = "a"
    seconds: float = 2.0
    seed: int = 0
    size: int = 32
    views: tuple[str, ...] = ("base", "wrist")
    images: str = "jpeg"
    lockstep: bool = False
    camera_hz: float = 30.0
    joint_hz: float = 1000.0
    gripper_hz: float = 15.0
    executor_hz: float = 50.0
    task: str = "Reach-v0"
    instruction: str = "move every joint to its mark"
    outcome: str = "success"
    embodiment: str = "fr3"
    teleop: bool = False
    privileged: int = 0
    observation_images: bool = False
    """The bag keeps the pixels of observations, as the recorder does if it is told so."""
    watched: bool = False
    """A policy watches, which plans what is done."""
    missing: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Per stream (a view, joints, gripper) the time in which nothing comes [s]."""

    def position(self, t: int) -> FloatArray:
        """The measured joint positions at `t` [rad]."""
        home, phase = load_embodiment(self.embodiment).home, (t - START_NS) / 1e9 + self.seed
        return home + 0.1 * np.sin(phase + np.arange(len(home)))

    def opening(self, t: int) -> float:
        """The measured gripper opening at `t`."""
        return float(0.5 + 0.4 * np.sin((t - START_NS) / 1e9))

    def row(self, t: int) -> FloatArray:
        """The set-point for `t`: where the arm will be 100 ms later."""
        return np.append(self.position(t + 100 * MS), round(self.opening(t)))

    def image(self, view: str, t: int) -> ImageArray:
        """What a view shows at `t`: a gradient, and a square that moves."""
        s, step = self.size, round((t - START_NS) / 10e6) + self.seed
        ramp = np.linspace(0, 255, s)
        picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 40.0 * (1 + len(view) % 5)), axis=-1)
        picture = picture.astype(np.uint8)
        x, y, side = step % (3 * s // 4), (step * 7) % (3 * s // 4), max(2, s // 4)
        picture[y : y + side, x : x + side] = (255, 255, step % 256)
        return picture

    def write(self, root: Path, crash: bool = False) -> Path:
        """Write the bag below `root`; with `crash` its recording does not finish. Returns its folder."""
        return _Writer(self, root).write(crash)


class _Writer:
    def __init__(self, episode: SyntheticEpisode, root: Path) -> None:
        self._e, self._d = episode, installed()
        self._arm = load_embodiment(episode.embodiment)
        self._bag = BagWriter(root, episode.name, BagConfig(min_free_bytes=0, fsync_s=0.0), self._d)
        self._sequence = 0
        self._end_ns = START_NS + round(episode.seconds * 1e9)

    def write(self, crash: bool) -> Path:
        e = self._e
        custom = {"episode_id": e.name, "task": e.task, "seed": str(e.seed), "instruction": e.instruction}
        self._bag.metadata({"code_version": "synthetic", **custom})
        node = {"embodiment": e.embodiment, "lockstep": e.lockstep, "views": list(e.views)}
        node |= {"image_height": e.size, "image_width": e.size, "camera_rate_hz": e.camera_hz}
        self._bag.attach("configuration.yaml", yaml.safe_dump({"settings": {"observation_sync": node}}), START_NS)
        self._event(START_NS, 0)
        for t, order, stream in sorted(self._schedule()):
            del order
            self._sample(stream, t)
        self._event(self._end_ns, 1, e.outcome)
        if crash:
            self._bag.flush()
            self._bag.abandon()
            return self._bag.path
        return self._bag.close({**custom, "outcome": e.outcome, "lost": "0"}).path

    def _schedule(self) -> list[tuple[int, int, str]]:
        e = self._e
        camera = 20.0 if e.lockstep else e.camera_hz
        rates = {"joints": e.joint_hz, "gripper": 20.0 if e.lockstep else e.gripper_hz}
        rates |= dict.fromkeys(e.views, camera) | {"observation": camera, "plan": 1e9 / PLAN_NS}
        rates |= {"executor": 20.0 if e.lockstep else e.executor_hz, "sim": 20.0 * bool(e.privileged)}
        rates |= {"clock": 20.0 * e.lockstep}
        late = {} if e.lockstep else {"wrist": 4 * MS, "gripper": 3 * MS, "executor": 7 * MS, "plan": 5 * MS}
        events = []
        for order, (stream, rate) in enumerate(rates.items()):
            times = START_NS + np.round(np.arange(0, round(e.seconds * rate) + (rate > 0)) * 1e9 / max(rate, 1))
            first, last = e.missing.get(stream, (0.0, 0.0))
            shifted = (times.astype(np.int64) + late.get(stream, 0)).tolist()
            there = [t for t in shifted if t <= self._end_ns and not first <= (t - START_NS) / 1e9 < last]
            events += [(t, order, stream) for t in there]
        return events

    def _sample(self, stream: str, t: int) -> None:
        if stream in self._e.views:
            self._image(stream, t)
        else:
            getattr(self, f"_{stream}")(t)

    def _joints(self, t: int) -> None:
        self._states(JOINT_STATES, t, self._arm.joint_names, self._e.position(t))

    def _gripper(self, t: int) -> None:
        self._states(GRIPPER_STATES, t, self._arm.gripper_joint_names, self._fingers(t))

    def _fingers(self, t: int) -> FloatArray:
        count = len(self._arm.gripper_joint_names)
        return np.full(count, self._e.opening(t) * self._arm.gripper_width_m / count)

    def _states(self, topic: Topic, t: int, names: tuple[str, ...], values: FloatArray) -> None:
        none = np.empty(0)
        self._put(topic, t, name=list(names), position=values, velocity=none, effort=none, header=self._header(t))

    def _clock(self, t: int) -> None:
        self._put(CLOCK, t, clock=self._time(t))

    def _image(self, view: str, t: int) -> None:
        pixels, e, topic = self._e.image(view, t), self._e, camera_topic(view)
        message = self._d.new(
            IMAGE, header=self._header(t), height=e.size, width=e.size, encoding="rgb8", is_bigendian=0,
            step=3 * e.size, data=pixels.reshape(-1),
        )  # fmt: skip
        data = self._d.encode(message)
        if e.images == "raw":
            self._bag.write(topic.name, topic.type, topic.qos, data, t, t, 0)
            return
        stored = compress(data, self._d, lossless=e.images == "png")
        assert stored is not None
        self._bag.write(topic.name + "/compressed", COMPRESSED_IMAGE, Qos(), stored, t, t, 0)

    def _observation(self, t: int) -> None:
        e, arm = self._e, self._arm
        names, fingers = arm.gripper_joint_names, self._fingers(t)
        views = [e.image(view, t).reshape(-1) if e.observation_images else np.empty(0, np.uint8) for view in e.views]
        images = [
            self._d.new(
                IMAGE, header=self._header(t), height=e.size, width=e.size, encoding="rgb8", is_bigendian=0,
                step=3 * e.size, data=data,
            )
            for data in views
        ]  # fmt: skip
        self._put(
            OBSERVATION, t, header=self._header(t), status=0, sequence=0, stale_stream="", stale_reason="",
            stale_age_ns=0, embodiment=e.embodiment, instruction=e.instruction, view_names=list(e.views),
            views=images, view_skew_ns=np.zeros(len(e.views), np.int64),
            joint_names=list(self._arm.joint_names), joint_positions=e.position(t), joint_skew_ns=0,
            gripper_opening=gripper_opening(names, fingers, names, arm.gripper_width_m), gripper_age_ns=0, age_ns=0,
        )  # fmt: skip

    def _plan(self, t: int) -> None:
        self._sequence += 1
        rows = np.array([self._e.row(t + i * ROW_NS) for i in range(ROWS)])
        plan: dict[str, Any] = {
            "header": self._header(t), "status": 0, "reason": "", "source": self._source, "session": "s",
            "sequence": self._sequence, "in_reply_to": self._time(t), "t0": self._time(t), "period_ns": ROW_NS,
            "representation": 0, "embodiment": self._e.embodiment, "joint_names": list(self._arm.joint_names),
            "rows": ROWS, "columns": rows.shape[1], "data": rows.reshape(-1), "latency_ns": 0, "seed": 0,
            "uncertainty": np.empty(0, np.float32), "checkpoint": "",
        }  # fmt: skip
        for topic in (ACTION_CHUNK, *([SHADOW_CHUNK] if self._e.watched else [])):
            self._put(topic, t, **plan)

    def _executor(self, t: int) -> None:
        sequence = (t - START_NS) // PLAN_NS + 1
        t0 = START_NS + (sequence - 1) * PLAN_NS + (0 if self._e.lockstep else 5 * MS)
        running = sequence <= self._sequence
        self._put(
            EXECUTOR_STATE, t, header=self._header(t), mode=2 if running else 1, reason="",
            source=self._source if running else "", session="s" if running else "",
            sequence=sequence if running else 0, t0=self._time(t0 if running else 0), committed_until=self._time(t),
            commands=0, chunks_accepted=0, chunks_refused=0, last_refusal="", joint_names=list(self._arm.joint_names),
            positions=self._e.position(t), velocities=np.zeros(self._arm.joints), gripper_opening=float("nan"),
        )  # fmt: skip

    def _sim(self, t: int) -> None:
        self._put(
            SIM_STATE, t, header=self._header(t), reset_id=self._e.privileged, task=self._e.task, seed=self._e.seed,
            step=0, max_steps=0, success=False, success_once=False, done=False, overrun_ns=0, names=[], poses=[],
        )  # fmt: skip

    def _event(self, t: int, kind: int, outcome: str = "") -> None:
        e = self._e
        self._put(
            EPISODE_EVENT, t, header=self._header(t), kind=kind, episode_id=e.name, instruction=e.instruction,
            task=e.task, seed=e.seed, outcome=outcome, note="",
        )  # fmt: skip

    @property
    def _source(self) -> str:
        return "teleop" if self._e.teleop else "scripted"

    def _put(self, topic: Topic, t: int, **fields: Any) -> None:
        data = self._d.encode(self._d.new(topic.type, **fields))
        self._bag.write(topic.name, topic.type, topic.qos, data, t, t, 0)

    def _header(self, t: int) -> Any:
        return self._d.new("std_msgs/msg/Header", stamp=self._time(t), frame_id="")

    def _time(self, t: int) -> Any:
        return self._d.new("builtin_interfaces/msg/Time", sec=t // 10**9, nanosec=t % 10**9)
