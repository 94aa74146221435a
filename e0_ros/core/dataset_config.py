"""Settings of the conversion of bags to a dataset, and which bags are taken."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from e0_ros.config import ConfigError, check, setting
from e0_ros.core.episode import OUTCOMES


@dataclass(frozen=True)
class ConvertConfig:
    """What determines a dataset's content; a dataset may only grow by episodes converted with the same settings."""

    fps: int = setting(20, "frames per second", unit="Hz", low=1, high=240)
    frames: str = setting(
        "auto",
        "where frames lie: on a grid of the episode's time, at the observations, or auto: at the observations if the "
        "bag was recorded in lock-step",
        choices=("auto", "grid", "observations"),
    )
    action: str = setting(
        "commanded",
        "which signal is the action: the row of the plan in force, the state one frame later, or the teleoperator's "
        "target",
        choices=("commanded", "measured_next", "teleop"),
    )
    action_rows: str = setting(
        "hold", "joints between two rows of a plan; the gripper is always held", choices=("hold", "interpolate")
    )
    embodiment: str = setting("", "arm, or the path of your own arm's YAML file; empty: the arm that the bag names")
    views: tuple[str, ...] = setting((), "camera views, the reference view first; empty: those of each bag's graph")
    image_height: int = setting(0, "height of images; 0: as the policy was fed", unit="px", low=0, high=4096)
    image_width: int = setting(0, "width of images; 0: as the policy was fed", unit="px", low=0, high=4096)
    tolerance_ms: float = setting(100.0, "oldest image on the grid", unit="ms", low=0.0, high=2000.0)
    gaps: str = setting(
        "refuse", "an episode with a gap is left out, or goes on with what came last", choices=("refuse", "hold")
    )
    salvage: bool = setting(True, "take a damaged bag up to its first gap; else it is left out")
    codec: str = setting(
        "h264", "video codec; lossless (H.264 in RGB) keeps every pixel", choices=("h264", "av1", "lossless")
    )
    crf: int = setting(18, "constant rate factor of the video, lower is better and larger", low=0, high=51)
    gop: int = setting(2, "frames from one key frame to the next, the most that a random read decodes", low=1, high=250)

    def __post_init__(self) -> None:
        check(self)
        for name in ("image_height", "image_width"):
            if getattr(self, name) % 2:
                raise ConfigError(f"ConvertConfig.{name} is {getattr(self, name)}; video needs an even number of px")


@dataclass(frozen=True)
class Selection:
    """Which bags become episodes; discarded takes never do."""

    outcomes: tuple[str, ...] = setting(("success",), "outcomes to take (success failure unlabelled, or all)")
    tasks: tuple[str, ...] = setting((), "tasks to take, as patterns (Pick*); empty: any")
    instructions: tuple[str, ...] = setting((), "instructions to take, as patterns; empty: any")
    flagged: str = setting(
        "take",
        "takes that the verdict of e0 record and e0 inspect flags are taken and named, or left out",
        choices=("take", "refuse"),
    )

    def __post_init__(self) -> None:
        check(self)
        for outcome in self.outcomes:
            if outcome not in ("all", *OUTCOMES) or outcome == "discard":
                allowed = ", ".join(o for o in OUTCOMES if o != "discard")
                raise ConfigError(f"outcomes has {outcome[:80]!r}; allowed are {allowed}, all")

    def refusal(self, outcome: str, task: str, instruction: str) -> str:
        """Why an episode is left out; empty if it is taken."""
        if outcome == "discard":
            return "it was discarded"
        if "all" not in self.outcomes and outcome not in self.outcomes:
            return f"its outcome is {outcome}"
        for name, text, patterns in (("task", task, self.tasks), ("instruction", instruction, self.instructions)):
            if patterns and not any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns):
                return f"its {name} is {text!r}"
        return ""
