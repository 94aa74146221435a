import os
from pathlib import Path

import numpy as np
import pytest

from e0_ros.core.dataset_video import VideoError, VideoFormat, VideoWriter, count_frames, frame_times, join
from e0_ros.synthetic_episode import MS, START_NS, SyntheticEpisode


def pictures(count, seed=0, size=64):
    episode = SyntheticEpisode(seed=seed, size=size)
    return [episode.image("base", START_NS + i * 50 * MS) for i in range(count)]


def write(path, images, **fields):
    writer = VideoWriter(path, VideoFormat(20, *images[0].shape[:2], **fields))
    for image in images:
        writer.add(image)
    writer.close()
    return path


def decoded(path):
    import av

    with av.open(str(path)) as container:
        return np.array([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("codec", ["h264", "av1", "lossless"])
def test_frames_come_back_in_order_and_joined_videos_are_the_parts(tmp_path, codec):
    parts = [pictures(5), pictures(1, seed=9), pictures(8, seed=3)]
    paths = [write(tmp_path / f"{i}.mp4", images, codec=codec, crf=12) for i, images in enumerate(parts)]
    assert [count_frames(path) for path in paths] == [5, 1, 8]
    assert join(paths, tmp_path / "all.mp4", 20) == [5, 1, 8]
    frames, expected = decoded(tmp_path / "all.mp4"), np.concatenate(parts)
    assert frames.shape == expected.shape
    error = np.abs(frames.astype(int) - expected).mean(axis=(1, 2, 3))
    assert error.max() < (1e-9 if codec == "lossless" else 6)
    np.testing.assert_array_equal(frames, np.concatenate([decoded(path) for path in paths]))
    assert frame_times(tmp_path / "all.mp4", 20) == list(range(14))


def test_a_key_frame_is_never_farther_than_the_gop(tmp_path):
    import av

    with av.open(str(write(tmp_path / "a.mp4", pictures(7), gop=2))) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert keys == [True, False, True, False, True, False, True]


def test_the_same_frames_give_the_same_bytes(tmp_path):
    a, b = (write(tmp_path / name, pictures(6)) for name in ("a.mp4", "b.mp4"))
    assert a.read_bytes() == b.read_bytes()


def test_wrong_sizes_are_refused(tmp_path):
    with pytest.raises(VideoError, match="even"):
        VideoWriter(tmp_path / "a.mp4", VideoFormat(20, 33, 32))
    writer = VideoWriter(tmp_path / "b.mp4", VideoFormat(20, 32, 32))
    with pytest.raises(VideoError, match="64, 64"):
        writer.add(pictures(1)[0])
    writer.close()


def test_no_encoder_comes_first_on_a_core(tmp_path):
    """SVT-AV1 would, as root, and what is started later inherits it: nothing else runs beside."""
    writer = VideoWriter(tmp_path / "v.mp4", VideoFormat(20, 64, 64, "av1"))
    writer.add(np.zeros((64, 64, 3), np.uint8))
    policies = {os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir()}
    writer.close()
    assert policies == {os.SCHED_OTHER}
    assert count_frames(tmp_path / "v.mp4") == 1
