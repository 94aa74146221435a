"""`make soak`: the graph in real time with a random fault every 30 s, and whether it recovers, leaks or breaks a limit.

python -m tests.faults.soak --seconds 1800 --seed 7
python -m tests.faults.soak --seconds 7200 --without kill --settle 1200     # growth: every life as long as the soak
python -m tests.faults.soak --lockstep --seconds 28800      # simulated seconds, as fast as they run, without faults

The seed draws the faults, their order and their figures; what the machine does meanwhile is its own. A policy plans,
the soak carries its plans to the executor and plays the camera `wrist`. Exit status 1: an illegal set-point, a fault
that the graph did not recover from, a bag that does not read, a process that ended by itself, or one that grows: in the
second half of a settled life of an hour or more its memory by more than 1 MiB/h beyond three standard errors, or its
threads or open files at all. Of shorter lives it prints that they are too short to tell.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from e0_ros.delay_probe import SUFFIX
from e0_ros.graph import RESTART, Graph
from e0_ros.graph_client import GraphCallError
from e0_ros.launcher import Launcher
from e0_ros.own_domain import own_domain
from e0_ros.progress import Progress
from e0_ros.resolve import GraphError, resolve
from sim.evaluator import start
from tests.faults.gauges import MIB, Gauges, Trend
from tests.faults.injected import KILLED, KINDS, Fault, Injector, Outcome, schedule
from tests.faults.watched import Watched, patient, recording

SAMPLE_S, EPISODE_STEPS, STEP_S = 5.0, 12_000, 0.05
PATIENCE = {"bridge": {"judge": True, "timeout_s": 120.0}}


def graph(folder: Path, lockstep: bool, seconds: float = 0.0) -> Graph:
    """A replayed recording on fr3_plant; live: nodes are started again, plans and one camera go through the soak.

    `seconds`: how long the soak is meant to last; the recording lasts three times as long, as faults take their time.
    """
    mode = "lockstep" if lockstep else "realtime"
    values = {"simulator": "fr3_plant", "source": "replay", "mode": mode, "size": 64, "record": not lockstep}
    rows = max(40_000, round(3 * seconds / STEP_S))
    values |= {"recording": str(recording(folder / "plan", rows)), "bag_dir": str(folder / "bags")}
    if lockstep:
        return resolve("sim", {**values, "size": 16}, {"bridge": {**PATIENCE["bridge"], "joint_state_rate_hz": 20}})
    made = resolve("sim", values, PATIENCE)
    own = {"policy": {"shadow": True, "max_observation_age_ms": 1000.0}, "bridge": {"views": ["base"]}}
    processes = (
        replace(p, on_death=RESTART, settings={**p.settings, **own.get(p.name, {})}) if p.name in (*KILLED, *own) else p
        for p in made.processes
    )
    return patient(replace(made, processes=tuple(processes)))


def live(seed: int, faults: Sequence[Fault], every_s: float, settle_s: float) -> int:
    """Faults in real time, drawn by the seed; prints what came of them."""
    gauges, outcomes, ended = Gauges(), list[Outcome](), list[str]()

    def hear(_: str, text: str) -> None:
        if " ended with " in text and "SIGKILL" not in text:
            ended.append(text)

    with tempfile.TemporaryDirectory(prefix="e0_soak_") as name:
        folder = Path(name)
        with Launcher(graph(folder, False, every_s * len(faults)), folder / "logs", hear) as nodes:
            soak = Injector(nodes, folder / "bags", lambda at_s: gauges.read(pids(nodes), at_s), SAMPLE_S)
            try:
                nodes.wait_ready(180.0)
                alone(soak.seen, nodes)
                suffer(soak, faults, every_s, outcomes)
                setpoints, violations = soak.seen.judged()
            except (KeyboardInterrupt, AssertionError, GraphCallError, GraphError) as error:
                ended.append(f"the soak ended with {type(error).__name__} {error}")
                setpoints, violations = 0, -1
            finally:
                soak.close()
    trends = gauges.trends(settle_s)
    print(f"\nseed {seed}, {len(outcomes)} faults\n{summary(outcomes)}\n\n{held(trends)}")
    print(f"\njudge: {violations} illegal of {setpoints} set-points")
    print(f"bags: {soak.bags} whole and {soak.partial} cut ones, {soak.messages} messages read from them")
    print("\n".join(ended) or "no process ended but those that were killed")
    return int(bool(violations or ended or growing(trends)) or not all(outcome.recovered for outcome in outcomes))


def alone(seen: Watched, nodes: Launcher) -> None:
    """Nobody else in this domain, whose commands would be mixed with ours."""
    names = {name.removesuffix(SUFFIX) for name in seen.get_node_names()}
    strangers = names - {seen.get_name(), *nodes.status()}
    assert not strangers, f"this ROS domain has other nodes: {', '.join(sorted(strangers))}; run again"


def suffer(soak: Injector, faults: Sequence[Fault], every_s: float, outcomes: list[Outcome]) -> None:
    """One fault after the other."""
    progress = Progress(len(faults), "faults")
    soak.settle()
    for fault in faults:
        outcomes.append(soak.suffer(fault, every_s))
        progress.advance(str(outcomes[-1]))


def lockstep(seconds: float, seed: int, settle_s: float) -> int:
    """Simulated time as fast as it runs; prints what the processes held."""
    gauges, steps, errors = Gauges(), round(seconds / STEP_S), list[str]()
    every, began = round(60.0 / STEP_S), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="e0_soak_") as name:
        folder = Path(name)
        with Launcher(graph(folder, lockstep=True), folder / "logs") as nodes:
            evaluator = start("policy", timeout_s=300.0)
            progress, done = Progress(-(-steps // every), "simulated minutes"), 0
            try:
                nodes.wait_ready(180.0)
                evaluator.wait_ready()
                while done < steps and not errors:

                    def look(episode, before: int = done) -> None:  # type: ignore[no-untyped-def]
                        if (before + episode.steps) // every > progress.done:  # not every step is seen
                            gauges.read(pids(nodes), (before + episode.steps) * STEP_S)
                            progress.advance()

                    episode = evaluator.run(0, "", seed, min(EPISODE_STEPS, steps - done), look)
                    done += episode.steps
                    errors += [episode.error] if episode.error or episode.violations else []
            except KeyboardInterrupt:
                errors.append("interrupted")
            finally:
                evaluator.close()
    hours, wall_h = done * STEP_S / 3600, (time.monotonic() - began) / 3600
    print(f"\n{hours:.2f} h in lock-step, {hours / wall_h:.1f} times real time; per simulated hour:")
    trends = gauges.trends(settle_s)
    print(f"{held(trends)}\n{'; '.join(errors) or 'judge: 0 illegal set-points'}")
    return int(bool(errors or growing(trends)))


def pids(nodes: Launcher) -> dict[str, int]:
    """Of what runs."""
    return {name: nodes.pid(name) for name, status in nodes.status().items() if status is None}


def summary(outcomes: Sequence[Outcome]) -> str:
    """Per kind of fault: how often, whether the arm stopped, how long until it was led again."""
    lines = [f"{'fault':<20}{'n':>4}{'stopped':>9}{'back after s, median':>22}{'max':>7}  reason, mostly"]
    for kind in sorted({outcome.fault.kind for outcome in outcomes}):
        mine = [outcome for outcome in outcomes if outcome.fault.kind == kind]
        times, reasons = [o.back_s for o in mine], [o.reason for o in mine if o.reason]
        mostly = max(reasons, key=reasons.count) if reasons else ""
        stopped = sum(bool(outcome.reason) for outcome in mine)
        lines.append(f"{kind:<20}{len(mine):>4}{stopped:>9}{np.median(times):>22.1f}{max(times):>7.1f}  {mostly}")
    return "\n".join(lines)


def growing(trends: dict[str, Trend]) -> list[str]:
    """Which processes grow."""
    return [name for name, trend in trends.items() if trend.grows]


def held(trends: dict[str, Trend]) -> str:
    """Per process: its lives, and of the longest memory, growth, threads and open files; whether it grows."""
    lines = [f"{'process':<18}{'lives':>6}{'h':>7}{'MiB':>16}{'MiB/h':>18}{'2nd half':>18}{'threads':>10}{'files':>10}"]
    for name, t in sorted(trends.items()):
        memory = f"{t.first.memory / MIB:.1f} .. {t.last.memory / MIB:.1f}"
        whole, half = (f"{g.mib_per_h:+.2f} +- {g.error:.2f}" for g in (t.whole, t.half))
        threads, files = f"{t.first.threads} .. {t.last.threads}", f"{t.first.files} .. {t.last.files}"
        verdict = (f"GROWS: {t.grows}" if t.grows else "holds") if t.long_enough else "too short to tell"
        figures = f"{name:<18}{t.lives:>6}{t.hours:>7.2f}{memory:>16}{whole:>18}{half:>18}{threads:>10}{files:>10}"
        lines.append(f"{figures}  {verdict}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Soak."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=1800.0, help="length; simulated with --lockstep")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--every", type=float, default=30.0, metavar="S", help="between faults (default: 30)")
    parser.add_argument("--settle", type=float, default=120.0, metavar="S", help="of a life not looked at for growth")
    parser.add_argument(
        "--without", nargs="+", default=(), choices=KINDS, metavar="KIND", help=f"leave faults out: {', '.join(KINDS)}"
    )
    parser.add_argument("--lockstep", action="store_true", help="accelerated, without faults")
    options = parser.parse_args(argv)
    with own_domain():
        if options.lockstep:
            return lockstep(options.seconds, options.seed, options.settle)
        kinds = [kind for kind in KINDS if kind not in options.without]
        faults = schedule(options.seed, max(1, round(options.seconds / options.every)), kinds)
        return live(options.seed, faults, options.every, options.settle)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs inherit SIGINT as ignored
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
