"""Demonstrations that were not recorded in bags: ManiSkill's and LIBERO's HDF5 files, and folders of `e0 collect`.

The files are of a Panda at 20 Hz. Rows are absolute joint positions [rad] or LIBERO's deltas, then the opening.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e0_policy.dataset import Episode, PackedSource
from e0_policy.types import FloatArray, ImageArray, Representation
from e0_ros.config import ConfigError
from e0_ros.core.step_rows import OSC_POSE
from sim.maniskill_tasks import TASKS

ROWS = ("own", "joint_position")
"""What rows shall be: those of the benchmark, or joint positions (of LIBERO those that were reached)."""
JOINTS = 7
FINGER_OPEN_M = 0.04
PERIOD_NS = 50_000_000
STILL_RAD = 1e-3
"""A ManiSkill row no joint of which is further from the present state asks for no motion."""
STILL_ACTION = 1e-4
"""The same for the norm of LIBERO's six deltas, as OpenVLA's data without no-ops have it."""
STILL_OPENING = 1e-3
"""A gripper that opens or closes by less in a step stands still."""
MAX_STEPS = 100_000
_DEMO, _TRAJ = re.compile(r"demo_[0-9]{1,9}"), re.compile(r"traj_[0-9]{1,9}")
_MANISKILL_VIEWS = {"base_camera": "base", "hand_camera": "wrist", "side_camera": "side"}
_LIBERO_VIEWS = {"agentview_rgb": "base", "eye_in_hand_rgb": "wrist"}


@dataclass(frozen=True)
class Trajectory:
    """A demonstration of T steps.

    `views[name]` is `(T, height, width, 3)`, `states` `(T, 8)`, `actions` `(T, columns)`, and `moves` `(T,)` is false
    where a row asks for no motion of the arm. `signal` says what a row is, as `ConvertConfig.action` does. `embodiment`
    is the arm. `step_names` are the columns of rows that are a benchmark's own; empty: they are joint positions.
    """

    name: str
    task: str
    seed: int
    instruction: str
    success: bool
    views: Mapping[str, ImageArray]
    states: FloatArray
    actions: FloatArray
    moves: NDArray[np.bool_]
    signal: str
    embodiment: str = "panda"
    step_names: tuple[str, ...] = ()

    def without_noops(self) -> Trajectory:
        """The same without steps that move neither the arm nor the gripper; the first of a grasp is kept."""
        gripper = self.actions[:, -1]
        changes = np.abs(np.diff(gripper, prepend=gripper[:1])) > 1e-3
        kept = self.moves | changes
        views = {name: images[kept] for name, images in self.views.items()}
        parts = {"states": self.states[kept], "actions": self.actions[kept], "moves": self.moves[kept]}
        return replace(self, views=views, **parts)


def read_trajectories(path: Path, rows: str = "own") -> Iterator[Trajectory]:
    """Every demonstration of a file, whose groups tell which of the two layouts it has, or of a packed folder.

    Args:
        path: the file, or the folder.
        rows: of `ROWS`.

    Raises:
        ConfigError: the file is of neither layout, or lacks pictures or states; the message has the cure.
        DatasetError: the folder is no packed one.

    """
    if path.is_dir():
        yield from _packed(path, rows)
        return
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as HDF5: {error}") from None
    with file:
        if "data" in file and any(_DEMO.fullmatch(name) for name in file["data"]):
            yield from _libero(file["data"], path, rows)
        elif any(_TRAJ.fullmatch(name) for name in file):
            yield from _maniskill(file, path)
        else:
            raise ConfigError(f"{path} has neither data/demo_<i> (LIBERO) nor traj_<i> (ManiSkill) groups")


def _packed(folder: Path, rows: str) -> Iterator[Trajectory]:
    """Episodes as `e0 collect` wrote them.

    Of OSC_POSE's, steps that ask for no motion count as such once the gripper, which takes some of them, stands still.
    """
    source, notes = PackedSource(folder), json.loads((folder / "index.json").read_text(encoding="utf-8"))["episodes"]
    if source.period_ns != PERIOD_NS:
        raise ConfigError(f"{folder} has a step every {source.period_ns} ns; {PERIOD_NS} is needed")
    if (steps := source.representation is Representation.EE_DELTA_STEP) and rows != "own":
        raise ConfigError(f"rows of {folder} are {source.representation.label}, asked for are {rows}; import its own")
    for index, (episode, note) in enumerate(zip(source.episodes, notes, strict=True)):
        count = len(episode)
        frames = [source.images(index, frame) for frame in range(count)]
        views = {view: np.array([images[view] for images in frames]) for view in source.views}
        yield Trajectory(
            episode.identifier,
            str(note.get("task", "")),
            int(note.get("seed", 0)),
            episode.instruction,
            True,
            views,
            episode.proprioception,
            episode.actions,
            _moving(episode) if source.action_names == OSC_POSE else np.ones(count, bool),
            "commanded",
            source.embodiment,
            source.action_names if steps else (),
        )


def _moving(episode: Episode) -> NDArray[np.bool_]:
    """Of each step, whether the arm is asked to move or the gripper moves."""
    opening = episode.proprioception[:, -1]
    asked = np.linalg.norm(episode.actions[:, :-1], axis=1) > STILL_ACTION
    moving: NDArray[np.bool_] = asked | (np.abs(np.diff(opening, append=opening[-1:])) > STILL_OPENING)
    return moving


def _maniskill(file: Any, path: Path) -> Iterator[Trajectory]:
    about = _maniskill_json(path)
    task, mode = str(about["env_info"]["env_id"]), str(about["env_info"]["env_kwargs"].get("control_mode", ""))
    instruction = TASKS[task].instruction if task in TASKS else ""
    for episode in about["episodes"]:
        name = f"traj_{int(episode['episode_id'])}"
        if name not in file:
            raise ConfigError(f"{path} lacks {name}, which its JSON file lists")
        group = file[name]
        actions = _actions(group, path, name)
        states = _maniskill_states(group, path, name)
        absolute = str(episode.get("control_mode", mode)) == "pd_joint_pos" and actions.shape[1] == JOINTS + 1
        rows = _maniskill_rows(actions, states, absolute, path)
        success = bool(episode.get("success", np.asarray(group["success"])[-1]))
        moves = np.abs(rows[:, :JOINTS] - states[:-1, :JOINTS]).max(axis=1) > STILL_RAD
        views = _pictures(_group(group, "obs/sensor_data"), {c: (v, "/rgb") for c, v in _MANISKILL_VIEWS.items()})
        if not views:
            raise ConfigError(
                f"{path}: {name} holds no pictures; replay it with `python -m mani_skill.trajectory.replay_trajectory "
                f"--traj-path {path} -o rgb -c pd_joint_pos --save-traj`"
            )
        seed = int(episode.get("episode_seed") or 0)
        cut = {view: images[: len(actions)] for view, images in views.items()}
        signal = "commanded" if absolute else "measured_next"
        yield Trajectory(name, task, seed, instruction, success, cut, states[:-1], rows, moves, signal)


def _maniskill_json(path: Path) -> Any:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise ConfigError(f"{beside} is missing; ManiSkill keeps each file's task and seeds beside it")
    about = json.loads(beside.read_text(encoding="utf-8"))
    if not {"env_info", "episodes"} <= set(about):
        raise ConfigError(f"{beside} lacks env_info or episodes; it is not ManiSkill's")
    return about


def _maniskill_states(group: Any, path: Path, name: str) -> FloatArray:
    """`(T + 1, 8)` from the nine joints of arm and fingers."""
    qpos = _group(group, "obs/agent/qpos")
    if qpos is None or qpos.shape[1:] != (JOINTS + 2,):
        shape = None if qpos is None else qpos.shape
        raise ConfigError(f"{path}: {name}/obs/agent/qpos is {shape}; a Panda's (T + 1, 9) is needed")
    joints = np.asarray(qpos, np.float64)
    opening = np.clip(joints[:, JOINTS:].mean(axis=1) / FINGER_OPEN_M, 0.0, 1.0)
    return np.column_stack([joints[:, :JOINTS], opening])


def _maniskill_rows(actions: FloatArray, states: FloatArray, absolute: bool, path: Path) -> FloatArray:
    """Absolute rows: the targets themselves, or where actions are deltas the joints that were reached."""
    if len(states) != len(actions) + 1:
        raise ConfigError(f"{path}: {len(states)} states for {len(actions)} actions; one more is needed")
    joints = actions[:, :JOINTS] if absolute else states[1:, :JOINTS]
    return np.column_stack([joints, np.clip((actions[:, -1] + 1.0) / 2.0, 0.0, 1.0)])


def _libero(data: Any, path: Path, rows: str) -> Iterator[Trajectory]:
    """LIBERO's files hold what was seen after each action (scripts/create_dataset.py), so a frame has the next one."""
    problem = json.loads(data.attrs.get("problem_info", "{}"))
    instruction = str(problem.get("language_instruction", "")).strip().strip('"')
    for name in sorted(filter(_DEMO.fullmatch, data), key=lambda key: int(key.removeprefix("demo_"))):
        group = data[name]
        actions = _actions(group, path, name)
        joints, fingers = _group(group, "obs/joint_states"), _group(group, "obs/gripper_states")
        if joints is None or fingers is None or actions.shape[1:] != (JOINTS,):
            raise ConfigError(f"{path}: {name} lacks obs/joint_states, obs/gripper_states or 7-D actions")
        if not len(joints) == len(fingers) == len(actions):
            raise ConfigError(f"{path}: {name} has {len(actions)} actions for {len(joints)} states")
        opening = np.clip(np.abs(np.asarray(fingers, np.float64)).mean(axis=1) / FINGER_OPEN_M, 0.0, 1.0)
        states = np.column_stack([np.asarray(joints, np.float64), opening])
        actions, steps = actions[1:], rows == "own"
        moved = actions[:, :-1] if steps else states[1:, :JOINTS]
        told = np.column_stack([moved, np.clip((1.0 - actions[:, -1]) / 2.0, 0.0, 1.0)])
        views = _pictures(_group(group, "obs"), {c: (v, "") for c, v in _LIBERO_VIEWS.items()})
        if not views:
            raise ConfigError(f"{path}: {name} holds neither of obs/{', obs/'.join(_LIBERO_VIEWS)}")
        upright = {view: np.ascontiguousarray(images[:-1, ::-1]) for view, images in views.items()}
        moves = np.linalg.norm(actions[:, :-1], axis=1) > STILL_ACTION
        what = states[:-1], told, moves, "commanded" if steps else "measured_next"
        yield Trajectory(name, path.stem, 0, instruction, True, upright, *what, step_names=OSC_POSE if steps else ())


def _actions(group: Any, path: Path, name: str) -> FloatArray:
    """`(T, columns)`."""
    actions = _group(group, "actions")
    if actions is None or actions.ndim != 2 or not 1 <= len(actions) <= MAX_STEPS:
        shape = None if actions is None else actions.shape
        raise ConfigError(f"{path}: {name}/actions is {shape}; (1..{MAX_STEPS}, columns) is needed")
    return np.asarray(actions, np.float64)


def _pictures(group: Any, names: Mapping[str, tuple[str, str]]) -> dict[str, ImageArray]:
    found = {}
    for camera, (view, below) in names.items():
        images = None if group is None else _group(group, camera + below)
        if images is not None and images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8:
            found[view] = np.asarray(images)
    return found


def _group(parent: Any, path: str) -> Any:
    return parent.get(path)
