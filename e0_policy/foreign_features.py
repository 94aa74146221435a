"""How the observations and rows of a policy of others are named and meant, and what they are in our terms.

A policy that was trained on a dataset of ours (`e0 convert`) needs nothing of this: the defaults are LeRobot's names,
joints in rad, an opening in [0, 1] and absolute rows. `config/policies/` has what others need.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from e0_policy.embodiment import Embodiment
from e0_policy.policy import PolicyOutput
from e0_policy.transforms import resize_with_pad
from e0_policy.types import FloatArray, ImageArray, Observation, Representation

PARTS = ("joints", "gripper")
MEANINGS = ("joint_position", "joint_delta", "joint_velocity", "ee_pose", "ee_delta_step")


class FeatureError(ValueError):
    """A mapping, an observation or an answer does not fit; the message says what was got and what is allowed."""


@dataclass(frozen=True)
class Features:
    """What a policy of others is fed and what it answers.

    Attributes:
        embodiment: whose actions it predicts; empty: of the arm that it is asked to drive.
        views: our names of views to its names of images.
        image_px: height and width that a view is scaled to, with black borders; an image's own size if `images` has it.
        images: height and width by the policy's name of the image.
        rotate: views to turn by 180 degrees.
        state: the policy's names of vectors to what is in them, `joints` [rad] and `gripper`.
        instruction: its name of the instruction.
        actions: its name of the rows in a reply.
        action: what a row is. `joint_position`: absolute [rad]; `joint_delta`: from the joints that were observed;
            `joint_velocity` [rad/s]; `ee_pose`: x y z [m] and quaternion xyzw in the base frame; `ee_delta_step`: of a
            benchmark's own controller, passed on as they are but for the gripper. The gripper comes last.
        action_columns: columns of a row in that order; empty: the first ones.
        action_scale: deltas and velocities are multiplied by it.
        gripper_state: its numbers for a closed and an open gripper in the state.
        gripper_action: the same in rows.
        period_ms: time between rows.
        execution_horizon: rows meant to run before the next plan.
        observations: how many observations it is given, `period_ms` apart, the present one last.

    """

    embodiment: str = ""
    views: Mapping[str, str] = field(default_factory=dict)
    image_px: int = 224
    images: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    rotate: tuple[str, ...] = ()
    state: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"observation.state": PARTS})
    instruction: str = "prompt"
    actions: str = "actions"
    action: str = "joint_position"
    action_columns: tuple[int, ...] = ()
    action_scale: float = 1.0
    gripper_state: tuple[float, float] = (0.0, 1.0)
    gripper_action: tuple[float, float] = (0.0, 1.0)
    period_ms: float = 50.0
    execution_horizon: int = 8
    observations: int = 1

    def __post_init__(self) -> None:
        for name in ("period_ms", "execution_horizon", "observations", "image_px"):
            if not 0 < getattr(self, name) <= 10_000:
                raise FeatureError(f"{name} is {getattr(self, name)!r}; above 0, at most 10000 is needed")
        if not self.views:
            raise FeatureError("views is empty; our names of views to the policy's names of images are needed")
        if self.action not in MEANINGS:
            raise FeatureError(f"action is {self.action!r}; allowed are {', '.join(MEANINGS)}")
        if wrong := [part for parts in self.state.values() for part in parts if part not in PARTS]:
            raise FeatureError(f"state has {wrong[0]!r}; allowed are {', '.join(PARTS)}")
        if wrong := [view for view in self.rotate if view not in self.views]:
            raise FeatureError(f"rotate names {wrong[0]!r}; the views are {', '.join(self.views)}")
        for name in ("gripper_state", "gripper_action"):
            pair = getattr(self, name)
            if len(pair) != 2 or pair[0] == pair[1]:
                raise FeatureError(f"{name} is {list(pair)}; its numbers for closed and open are needed")

    @property
    def period_ns(self) -> int:
        """Time between rows."""
        return round(self.period_ms * 1e6)

    @property
    def side_px(self) -> int:
        """Side of the squares that views had best be rendered at."""
        return max((max(size) for size in self.images.values()), default=0) or self.image_px

    def request(self, history: Sequence[Observation]) -> dict[str, Any]:
        """What the policy is asked, from `observations` observations, the present one last.

        With one observation arrays are as openpi has them: images `uint8 (height, width, 3)`, vectors `float32 (n,)`;
        with several they are stacked along a first axis.

        Raises:
            FeatureError: a view is missing.

        """
        told = [self._told(observation) for observation in history]
        one = told[0] if len(told) == 1 else {name: np.stack([t[name] for t in told]) for name in told[0]}
        return {**one, self.instruction: history[-1].instruction}

    def _told(self, observation: Observation) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for view, name in self.views.items():
            if view not in observation.views:
                there = ", ".join(observation.views) or "none"
                raise FeatureError(f"view {view!r} is missing; got {there}, needed {', '.join(self.views)}")
            image = fitted(observation.views[view], self.images.get(name, (self.image_px, self.image_px)), view)
            values[name] = np.ascontiguousarray(image[::-1, ::-1]) if view in self.rotate else image
        closed, opened = self.gripper_state
        parts = {
            "joints": observation.joint_positions,
            "gripper": np.array([closed + observation.gripper_opening * (opened - closed)]),
        }
        for name, wanted in self.state.items():
            values[name] = np.concatenate([parts[part] for part in wanted]).astype(np.float32)
        return values

    @property
    def representation(self) -> Representation:
        """What the rows are that `output` makes."""
        known = {"ee_pose": Representation.EE_POSE, "ee_delta_step": Representation.EE_DELTA_STEP}
        return known.get(self.action, Representation.JOINT_POSITION)

    def output(self, reply: Mapping[str, Any], observation: Observation, arm: Embodiment) -> PolicyOutput:
        """A reply as absolute rows from the observation on.

        Raises:
            FeatureError: no rows, too few columns, or a number that is not finite.

        """
        if not isinstance(answer := reply.get(self.actions), np.ndarray) or answer.ndim != 2 or not answer.size:
            there = {name: getattr(value, "shape", type(value).__name__) for name, value in reply.items()}
            raise FeatureError(f"the reply has no rows {self.actions!r} (rows, columns); it has {there}")
        picked = self._columns(answer.astype(np.float64), arm)
        if not np.isfinite(picked).all():
            raise FeatureError("the policy's rows are not finite")
        closed, opened = self.gripper_action
        gripper = np.clip((picked[:, -1:] - closed) / (opened - closed), 0.0, 1.0)
        moves, steps = picked[:, :-1], self.representation is Representation.EE_DELTA_STEP
        rows = np.hstack([moves if steps else self._absolute(moves, observation.joint_positions), gripper])
        return PolicyOutput(rows, self.period_ns, self.representation)

    def _columns(self, answer: FloatArray, arm: Embodiment) -> FloatArray:
        wanted = self.action_columns or range(self._width(arm) or answer.shape[1])
        if max(wanted) >= answer.shape[1]:
            raise FeatureError(
                f"the policy's rows have {answer.shape[1]} columns; column {max(wanted)} is needed "
                f"({self.action} of {arm.name}; pick them with action_columns)"
            )
        picked: FloatArray = answer[:, list(wanted)]
        return picked

    def _width(self, arm: Embodiment) -> int:
        """Columns of a row; 0: whatever comes."""
        return {"ee_pose": 8, "ee_delta_step": 0}.get(self.action, arm.columns)

    def _absolute(self, moves: FloatArray, joints: FloatArray) -> FloatArray:
        if self.action == "joint_delta":
            return joints + self.action_scale * moves
        if self.action == "joint_velocity":
            return joints + np.cumsum(self.action_scale * moves, axis=0) * (self.period_ms / 1e3)
        return moves


def fitted(image: ImageArray, size: tuple[int, int], name: str) -> ImageArray:
    """An image scaled into `(height, width)`, aspect kept, black borders centred; the same if it has that size."""
    height, width = size
    if image.shape[:2] == size:
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    square = resize_with_pad(image, max(1, round(max(image.shape[:2]) * scale)), name)
    inner = min(height, len(square)), min(width, len(square))
    top, left = ((len(square) - n) // 2 for n in inner)
    out = np.zeros((height, width, 3), np.uint8)
    y, x = (height - inner[0]) // 2, (width - inner[1]) // 2
    out[y : y + inner[0], x : x + inner[1]] = square[top : top + inner[0], left : left + inner[1]]
    return out


def features_of(values: Mapping[str, Any]) -> Features:
    """Features from plain values, as YAML has them.

    Raises:
        FeatureError: an unknown name (the closest is named), or a value of another kind.

    """
    known = {f.name: f for f in fields(Features)}
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), sorted(known), 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; allowed are {', '.join(sorted(known))}"
            raise FeatureError(f"unknown setting {name!r}{hint}")
    try:
        return Features(**{name: _value(str(known[name].type), value) for name, value in values.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise FeatureError(f"settings of the policy: {error}") from None


def _value(kind: str, value: Any) -> Any:
    if kind.startswith("Mapping"):
        inner = kind.removeprefix("Mapping[str, ").removesuffix("]")
        if not isinstance(value, Mapping):
            raise FeatureError(f"{value!r} is no mapping")
        return {str(name): _value(inner, v) for name, v in value.items()}
    if kind.startswith("tuple"):
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise FeatureError(f"{value!r} is no list")
        return tuple(value)
    return {"str": str, "int": int, "float": float}[kind](value)
