from e0_ros.core.latency import Latency, disagreement

MS = 1_000_000


def heard(latency_ms: float, seconds: float = 3.0, jitter_ms: int = 30) -> Latency:
    latency = Latency()
    for k in range(int(seconds * 30)):
        arrived = k * 1000 // 30
        latency.add(int((arrived - latency_ms - k % jitter_ms) * MS), arrived * MS)
    return latency


def test_jitter_is_no_offset_and_an_offset_is_told_with_its_sign() -> None:
    base = heard(5.0)
    assert disagreement({"base": base, "wrist": heard(12.0)}, 18 * MS) == ""
    text = disagreement({"base": base, "wrist": heard(25.0)}, 18 * MS)
    assert text == "wrist: its stamps are -20.0 ms off those of base"
    assert "-100.0 ms" in disagreement({"base": base, "wrist": heard(105.0)}, 18 * MS)
    assert disagreement({"base": base, "wrist": heard(105.0)}, 0) == "", "switched off"


def test_stamps_of_the_future_are_told_without_another_camera() -> None:
    assert "base: its stamps lie 15.0 ms in the future" in disagreement({"base": heard(-15.0)}, 18 * MS)


def test_an_offset_that_ends_is_forgotten_and_the_first_second_tells_nothing() -> None:
    latency = heard(-15.0)
    for k in range(1000):
        latency.add((3000 + 10 * k - 5) * MS, (3000 + 10 * k) * MS)
    assert latency.least_ns == 5 * MS
    assert heard(5.0, 0.5).least_ns is None
    latency.clear()
    assert latency.least_ns is None
