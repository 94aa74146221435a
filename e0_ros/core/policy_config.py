"""Settings of the policy node. Apart from what reads checkpoints and recordings, as in `recorder_config`."""

from __future__ import annotations

from dataclasses import dataclass

from e0_ros.config import check, setting

DOUBT_NATS = 100.0
"""More entropy than any row has."""


@dataclass(frozen=True)
class PolicyConfig:
    """Which policy runs and on what terms."""

    policy: str = setting("replay", "which policy", choices=("replay", "e0"))
    embodiment: str = setting("fr3", "embodiment that rows must be for")
    recording: str = setting("", "replay: a bag's folder, an .mcap or an .npz file")
    checkpoint: str = setting("", "e0: the checkpoint, a folder (E0's or LeRobot's) or ws://HOST:PORT")
    device: str = setting("auto", "e0: torch device, or auto")
    settings: str = setting("{}", "e0: further settings as a YAML mapping, e.g. '{seed: 3}'")
    max_observation_age_ms: float = setting(
        200.0, "an older observation is dropped when inference would start", unit="ms", low=1.0, high=10e3
    )
    doubt_nats: float = setting(
        DOUBT_NATS, "the next plan is due at the first row of more entropy", unit="nats", low=0.0, high=DOUBT_NATS
    )
    camera_places: bool = setting(
        False, "tell the policy how far cameras stand from their places in training: /tf_static has both, "
        "<view>_color_optical_frame and <view>_trained_optical_frame"
    )  # fmt: skip
    view_reference: str = setting(
        "", "real time: a take to compare the fixed cameras' views with when an episode starts; empty: the pictures "
        "that come with the checkpoint"
    )  # fmt: skip
    overlay_dir: str = setting("overlays", "folder for what was seen then (red) and is seen now (cyan); empty: none")
    shadow: bool = setting(False, "only watch: plans go to /e0/shadow_chunk, where nothing follows them")
    lockstep: bool = setting(False, "answer every observation, without deadlines")

    def __post_init__(self) -> None:
        check(self)
