"""Episodes by the benchmark's own protocol: `env.step(row)`; no executor and no sync between policy and simulator.

A chunk's row is stepped at its time, and a new plan is made when the source wants one, without knowledge of the plan
before it. A row that the executor would refuse or smooth goes to the simulator as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from e0_policy.embodiment import load_embodiment
from e0_policy.types import ActionChunk, FloatArray, ImageArray, Observation, Representation
from sim.adapter import RowAdapter
from sim.camera_shift import known_offsets
from sim.direct import UNSEEN, DirectEpisode, Moment
from sim.episode import Episode
from sim.sources import Source
from sim.statistics import rms_jerk
from sim.trace import Trace


@dataclass
class _Run:
    """An episode in progress."""

    episode: Episode
    source: Source
    onlooker: Callable[[Moment], None] | None
    trace: Trace = field(default_factory=Trace)
    first: Mapping[str, ImageArray] = field(default_factory=dict)
    chunk: ActionChunk | None = None
    offsets: Mapping[str, FloatArray] = field(default_factory=dict)


class RawLoop:
    """Runs episodes with a source, step by step, as `sim.direct.DirectLoop` does through the executor."""

    def __init__(self, adapter: RowAdapter) -> None:
        self.adapter = adapter
        self._arm = load_embodiment(adapter.embodiment)

    def run(
        self,
        task: str,
        seed: int,
        source: Source,
        max_steps: int = 0,
        onlooker: Callable[[Moment], None] | None = None,
    ) -> DirectEpisode:
        """Run one episode; the source is already reset to it.

        Raises:
            ValueError: unknown task.

        """
        begin, scene = time.perf_counter(), self.adapter.reset(task, seed)
        episode = Episode(scene, 1, max_steps or scene.max_steps)
        run = _Run(episode, source, onlooker, offsets=known_offsets(self.adapter))
        episode.start()
        while episode.running:
            self._step(run)
        return DirectEpisode(
            success=episode.success_once,
            steps=episode.step,
            max_steps=episode.max_steps,
            wall_s=time.perf_counter() - begin,
            digest=run.trace.digest(),
            jerk_rad_s3=rms_jerk(*run.trace.motion(), self.adapter.control_period_ns),
            first=run.first,
        )

    def _step(self, run: _Run) -> None:
        adapter, episode = self.adapter, run.episode
        now_ns, privileged = episode.step * adapter.control_period_ns, adapter.privileged()
        episode.observe(privileged.success)
        run.trace.scene(now_ns, np.array(list(privileged.poses.values())))
        asked = not episode.done and run.source.looks(now_ns)
        look = not run.first or run.onlooker is not None or asked
        seen = self._observe(now_ns, look, episode.scene.instruction)
        run.first = run.first or seen.views
        if not episode.done:
            answer = run.source.answer(replace(seen, view_offsets=run.offsets), None)
            run.chunk = answer if isinstance(answer, ActionChunk) else run.chunk
        if run.onlooker:
            what = seen.views, seen.joint_positions, adapter.cameras()
            run.onlooker(Moment(episode.step, now_ns, *what, run.chunk, "", episode.success))
        if episode.done:
            episode.stop()
            return
        row = row_in_force(run.chunk, now_ns)
        absolute = run.chunk is not None and run.chunk.representation is Representation.JOINT_POSITION
        run.trace.reference(now_ns, seen.joint_positions if row is None or not absolute else row[:-1])
        adapter.stand() if row is None else adapter.act(row)
        episode.step += 1

    def _observe(self, now_ns: int, look: bool, instruction: str) -> Observation:
        adapter, arm = self.adapter, self._arm
        views: Mapping[str, ImageArray] = dict.fromkeys(adapter.views, UNSEEN)
        if look:
            adapter.start_render()
            views = adapter.finish_render()
        joints, opening = adapter.joint_state()[0], adapter.gripper_opening()
        return Observation(now_ns, views, joints, opening, instruction, arm.name, arm.joint_names)


def row_in_force(chunk: ActionChunk | None, now_ns: int) -> FloatArray | None:
    """The row in force, None while there is none; after a chunk's end its last one, unless rows are steps."""
    if chunk is None:
        return None
    index = (now_ns - chunk.t0_ns) // chunk.period_ns
    if index >= len(chunk.rows) and chunk.representation is Representation.EE_DELTA_STEP:
        return None
    row: FloatArray = chunk.rows[min(index, len(chunk.rows) - 1)]
    return row
