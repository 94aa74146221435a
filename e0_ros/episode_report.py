"""`e0 episode`: a bag's video and plot as files beside it; needs no ROS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from e0_ros.core.bag_reader import Bag, BagReadError
from e0_ros.core.inspection import arm_named
from e0_ros.core.inspection_bag import header_stamp_ns
from e0_ros.core.inspection_images import camera_views
from e0_ros.core.inspection_plot import plot
from e0_ros.core.traces import read_traces
from e0_ros.episode_video import write_video
from e0_ros.interfaces import OBSERVATION


def write_plot(bag: Bag, path: Path) -> None:
    """Write an SVG: commanded and measured positions, gripper, time between images; holds and refusals marked.

    Raises:
        BagReadError: the bag holds neither joint states nor executor states.

    """
    images: dict[str, list[int]] = {topic: [] for _, topic in camera_views(bag)}
    for message in bag.messages(images):
        images[message.topic].append(header_stamp_ns(message))
    embodiment = next((bag.decode(m).embodiment for m in bag.messages([OBSERVATION.name])), "")
    path.write_text(plot(read_traces(bag), arm_named(embodiment), images, standalone=True), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """`e0 episode`: write `<bag>.mp4` and `<bag>.svg` beside each bag. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="e0 episode",
        description="A video of a bag's camera views with the policy's plan drawn into it, and a plot of commanded "
        "against measured joint positions. `e0 inspect` tells what bags hold and how good they are.",
        epilog="example: e0 episode bags/20260101-120000 --only plot",
    )
    parser.add_argument("bags", nargs="+", type=Path, help="bag folders or .mcap files")
    parser.add_argument("--out", type=Path, help="folder to write to (default: beside each bag)")
    parser.add_argument("--only", choices=("video", "plot"), help="only this")
    parser.add_argument("--salvage", action="store_true", help="read what is whole of a partial or damaged bag")
    arguments = parser.parse_args(argv)
    failed = 0
    for path in arguments.bags:
        try:
            for written in report(path, arguments.out or path.parent, arguments.only, arguments.salvage):
                print(written)
        except (BagReadError, OSError) as error:
            print(f"e0 episode: {error}", file=sys.stderr)
            failed = 1
    return failed


def report(path: Path, out: Path, only: str | None = None, salvage: bool = False) -> Iterator[Path]:
    """Write the video (if there are images) and the plot of a bag, and yield the path of each once it is whole."""
    out.mkdir(parents=True, exist_ok=True)
    name = path.resolve().name.removesuffix(".mcap").removesuffix(".partial")
    for kind, suffix in (("video", ".mp4"), ("plot", ".svg")):
        bag = Bag(path, salvage=salvage)
        if only == kind or (only is None and (kind == "plot" or camera_views(bag))):
            partial, final = out / f".{name}{suffix}", out / f"{name}{suffix}"
            try:
                if kind == "video":
                    write_video(bag, partial)
                else:
                    write_plot(bag, partial)
                partial.replace(final)
            finally:
                partial.unlink(missing_ok=True)
            yield final


if __name__ == "__main__":
    sys.exit(main())
