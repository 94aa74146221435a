"""Makes approximate_time_pairs.json: what ros2/message_filters' own ApproximateTimeSynchronizer pairs (branch rolling,
361e42c, Apache-2.0), for streams in which each image has at most one partner within the slop.

    python tests/vectors/approximate_time_pairs.py FOLDER_OF_message_filters tests/vectors/approximate_time_pairs.json
"""

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

MS = 1_000_000


def streams(seed: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Slop [ns], and images in order of arrival: time of arrival, stream, stamp [ns]."""
    rng = random.Random(seed)
    period, jitter, slop = rng.choice([16, 33, 50]) * MS, rng.choice([0, 1, 3]) * MS, rng.choice([5, 10, 15]) * MS
    slop = min(slop, period // 2 - jitter - MS)
    offset, lost = rng.randrange(-slop // 2, slop // 2 + 1), rng.choice([0.0, 0.1])
    images = []
    for stream, shift in ((0, 0), (1, offset)):
        for k in range(30):
            stamp = 10**9 + k * period + shift + rng.randrange(-jitter, jitter + 1)
            if rng.random() >= lost:
                images.append((stamp + rng.randrange(0, 8 * MS), stream, stamp))
    return slop, sorted(images)


def upstream(slop: int, images: list[tuple[int, int, int]]) -> list[list[int]]:
    """Pairs of stamps that message_filters makes."""
    import message_filters
    from rclpy.time import Time

    filters = [message_filters.SimpleFilter(), message_filters.SimpleFilter()]
    synchronizer = message_filters.ApproximateTimeSynchronizer(filters, 100, slop / 1e9)
    pairs: list[list[int]] = []
    synchronizer.registerCallback(lambda a, b: pairs.append([a.ns, b.ns]))
    for _, stream, ns in images:
        filters[stream].signalMessage(SimpleNamespace(header=SimpleNamespace(stamp=Time(nanoseconds=ns)), ns=ns))
    return sorted(pairs)


def main() -> None:
    """Write the file."""
    sys.path.insert(0, sys.argv[1])
    cases = []
    for seed in range(12):
        slop, images = streams(seed)
        cases.append({"slop_ns": slop, "arrivals": images, "pairs": upstream(slop, images)})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    Path(sys.argv[2]).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
