"""`e0 bench fuzz`: hostile chunks through the limiter and, as messages over a slow link, through the whole executor.

The judge (`sim.judge`), which shares no code with either, counts what would have stopped a robot. It must be nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from e0_msgs.msg import ActionChunk as ChunkMsg
from e0_policy.embodiment import embodiment_names, load_embodiment
from e0_policy.files import write_json
from e0_policy.types import MAX_PERIOD_NS, ActionChunk, ChunkError, Representation
from e0_ros.conversions import chunk_from_msg, to_time
from e0_ros.core.chunk_executor import ChunkExecutor
from e0_ros.core.executor_types import ExecutorConfig, Mode
from sim.direct import as_trajectory
from sim.fr3_plant import Fr3Plant
from sim.hostile import MS, HostileRows, fuzz_limiter, narrow_bounds
from sim.judge import Judge
from sim.rig import Rig

TARGETS = {"illegal": "<= 0", "limiter_chunks_per_s": ">= 1667"}
TICK_NS = 4 * MS
_START_NS = 1_000 * MS
_WRONG, _NEAR = 0.15, 0.8
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
POSES: dict[str, object] = {"representation": int(Representation.EE_POSE), "joint_names": []}
WRONG: tuple[dict[str, object], ...] = (
    {"rows": 0},
    {"rows": 2**32 - 1, "columns": 2**32 - 1},
    {"columns": 9},
    {"joint_names": ["fr3_joint1"] * 7},
    {"joint_names": []},
    {"embodiment": "other"},
    {"representation": 1},
    {"representation": 250},
    {"period_ns": 0},
    {"period_ns": -(2**63)},
    {"period_ns": 2**63 - 1},
    {"period_ns": MAX_PERIOD_NS},
    POSES,
    {"source": "nobody"},
    {"session": "../../x"},
    {"sequence": 0},
    {"uncertainty": [0.0] * 3},
)


class Bench:
    """The executor, and an ideal arm behind a link that delays each message by up to `worst_ms`, in order.

    `narrow`: in a workspace drawn around the arm's home.
    """

    def __init__(self, name: str, rng: np.random.Generator, worst_ms: float, narrow: bool = False) -> None:
        self.rng, self.worst_ms, self.now_ns, self._arrived_ns = rng, worst_ms, _START_NS, 0
        plant = Fr3Plant(("base",), 16, 16, embodiment=name)
        self.rig = Rig(plant, "joint_trajectory", True, self.now_ns)
        config = ExecutorConfig(
            embodiment=name, max_jump_rad=7.0, max_tracking_error_rad=7.0, source_silence_ms=60000.0
        )
        if narrow:
            bounds = narrow_bounds(rng, self.rig.arm, 1)
            self.rig.judge = Judge(self.rig.arm, self.rig.sample().positions, bounds=bounds)
            config = replace(
                config, workspace_lower_m=tuple(bounds.lower[0].tolist()), max_speed_m_s=float(bounds.speed_m_s[0]),
                workspace_upper_m=tuple(bounds.upper[0].tolist()), table_height_m=float(bounds.table_m[0]),
            )  # fmt: skip
        self.executor = ChunkExecutor(config)
        self.hostile, self.refused_commands, self.sequence = HostileRows(rng, self.rig.arm, 1), 0, 0
        self.narrow, self.here = narrow, self.rig.arm.home
        self.run(10)
        self.executor.arm(self.now_ns)

    def _delay_ns(self) -> int:
        return int(self.rng.uniform(0, self.worst_ms)) * MS

    def run(self, ticks: int) -> None:
        """Tick, carry messages, let the arm move."""
        for _ in range(ticks):
            if command := self.executor.tick(self.now_ns).command:
                self._arrived_ns = max(self._arrived_ns, self.now_ns + self._delay_ns())
                self.rig.command(as_trajectory(command, self.rig.arm.joint_names), self._arrived_ns)
            self.now_ns += TICK_NS
            played = self.rig.advance(self.now_ns)
            self.refused_commands += len(played.refused)
            newest = played.samples[-1]
            self.here = newest.positions
            names = self.rig.arm.joint_names
            self.executor.observe_joints(newest.stamp_ns, names, newest.positions, newest.velocities)
            self.executor.observe_delay(self._delay_ns(), self.now_ns)

    def message(self) -> ChunkMsg:
        """A chunk message; one in seven is wrong in a field, and some hold numbers that are none."""
        rng, arm = self.rng, self.rig.arm
        rows = self.hostile.draw(int(rng.integers(1, 12)))
        if self.narrow and rng.random() < _NEAR:  # else every chunk is refused
            rows = self.here + rng.uniform(-0.3, 0.3, arm.joints) * np.linspace(0.1, 1.0, len(rows))[:, None]
        whole = np.column_stack((rows, rng.choice([0.0, 1.0, 0.5, 1.01], len(rows), p=[0.4, 0.4, 0.19, 0.01])))
        self.sequence += 1
        fields = {
            "source": "policy", "session": "a", "sequence": self.sequence, "embodiment": arm.name,
            "joint_names": list(arm.joint_names), "rows": len(whole), "columns": whole.shape[1],
            "period_ns": int(rng.choice([2, 20, 50, 67])) * MS,
        }  # fmt: skip
        if rng.random() < _WRONG:
            wrong = WRONG[int(rng.integers(len(WRONG)))]
            whole[:, 3:7] = np.eye(4)[0] if wrong is POSES else whole[:, 3:7]
            fields |= wrong
        t0_ns = self.now_ns + int(rng.integers(-100, 50)) * MS
        return ChunkMsg(t0=to_time(t0_ns), data=whole.ravel().tolist(), **fields)

    def offer(self, msg: ChunkMsg) -> None:
        """What the node does with a message."""
        try:
            chunk = chunk_from_msg(msg)
        except ChunkError as error:
            self.executor.refuse(msg.source, msg.session, str(error))
        else:
            assert isinstance(chunk, ActionChunk)
            self.executor.offer(chunk, self.now_ns)

    def disturb(self) -> None:
        """A stop or a hold, now and then; then go on, as a person would."""
        draw = self.rng.random()
        if draw < 0.02:
            self.executor.stop()
        elif draw < 0.04:
            self.executor.hold()
        if self.executor.mode in (Mode.STOPPED, Mode.DISARMED) or 0.02 <= draw < 0.04:
            self.run(int((600 + 2 * self.worst_ms) * MS / TICK_NS))
            self.executor.reset_stop()
            self.executor.arm(self.now_ns)


def fuzz_executor(name: str, chunks: int, seed: int, worst_ms: float = 10.0, narrow: bool = False) -> dict[str, float]:
    """Drive an arm's executor by chunk messages."""
    begin = time.process_time()
    bench = Bench(name, np.random.default_rng([seed, embodiment_names().index(name), 1]), worst_ms, narrow)
    with np.errstate(all="ignore"):
        for _ in range(chunks):
            bench.offer(bench.message())
            bench.run(int(bench.rng.integers(1, 16)))
            bench.disturb()
        bench.run(300)
    status, judge = bench.executor.status(bench.now_ns), bench.rig.judge
    assert judge is not None
    return {
        "chunks": chunks,
        "illegal": judge.violations + bench.refused_commands,
        "accepted": status.accepted,
        "refused": status.refused,
        "setpoints": judge.samples,
        "cpu_s": time.process_time() - begin,
    }


def fuzz(chunks: int, executor_chunks: int, seed: int) -> dict[str, float]:
    """Both, over every shipped arm of seven joints; the figures of `e0 bench fuzz`."""
    _keep_memory()
    names = [name for name in embodiment_names() if load_embodiment(name).joints == 7]
    limiter = [fuzz_limiter(name, chunks // len(names), seed) for name in names]
    cases = ((1.0, False), (200.0, False), (10.0, True))
    share = max(executor_chunks // len(names) // len(cases), 1)
    whole = [fuzz_executor(name, share, seed, worst_ms, narrow) for name in names for worst_ms, narrow in cases]
    limiter_chunks, limiter_s = sum(f.chunks for f in limiter), sum(f.cpu_s for f in limiter)
    return {
        "illegal": sum(f.illegal for f in limiter) + sum(f["illegal"] for f in whole),
        "limiter_chunks": limiter_chunks,
        "limiter_kept_in": sum(f.kept_in for f in limiter),
        "limiter_chunks_per_s": limiter_chunks / limiter_s,
        "executor_chunks": sum(f["chunks"] for f in whole),
        "executor_accepted": sum(f["accepted"] for f in whole),
        "executor_chunks_per_s": sum(f["chunks"] for f in whole) / sum(f["cpu_s"] for f in whole),
        "setpoints": sum(f.setpoints for f in limiter) + sum(f["setpoints"] for f in whole),
        "longest_stop_ms": max(float(f.stop_s.max()) for f in limiter) * 1e3,
        "stop_over_limit": max(float((f.stop_s / f.stop_limit_s).max()) for f in limiter),
    }


def _keep_memory() -> None:
    """Have glibc keep what is freed: many arms' arrays are large, and new pages for each cost as much as the work."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for option, size in ((_M_TRIM_THRESHOLD, 2**30), (_M_MMAP_THRESHOLD, 2**25)):
            mallopt(option, size)


def run(seconds: float) -> dict[str, float]:
    """For `e0 bench`: as many chunks as take about that long."""
    return fuzz(int(2000 * seconds), int(20 * seconds), 0)


def main(argv: Sequence[str] | None = None) -> int:
    """0: no illegal command; 1: there was one."""
    parser = argparse.ArgumentParser(
        prog="e0 bench fuzz", description=__doc__, epilog="example: e0 bench fuzz --chunks 1000000 --seed 7"
    )
    parser.add_argument("--chunks", type=int, default=100_000, help="through the limiter (default: 100000)")
    parser.add_argument("--executor-chunks", type=int, default=1_000, help="through the executor (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args(argv)
    figures = fuzz(options.chunks, options.executor_chunks, options.seed)
    for name, value in figures.items():
        print(f"{name:<24}{value:.6g}")
    if options.json:
        write_json(options.json, {"seed": options.seed, **figures})
    return 1 if figures["illegal"] else 0


if __name__ == "__main__":
    sys.exit(main())
