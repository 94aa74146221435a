from hypothesis import given
from hypothesis import strategies as st

from e0_ros.core.silence import Silence


def test_a_topic_that_stops_is_silent_after_the_limit_and_not_before() -> None:
    silence = Silence(["/a", "/b"], 500)
    silence.heard("/a", 0)
    assert silence.of(500) == []
    assert silence.of(501) == ["/a"]
    silence.heard("/a", 600)
    assert silence.of(700) == []


def test_what_nobody_watches_or_never_flowed_is_not_missed() -> None:
    silence = Silence(["/a"], 500)
    silence.heard("/other", 0)
    assert silence.of(10**12) == []


def test_an_episode_counts_from_its_start_and_forgets_what_had_stopped_before() -> None:
    silence = Silence(["/old", "/a"], 500)
    silence.heard("/old", 0)
    silence.heard("/a", 900)
    silence.start(1000)
    assert silence.of(1500) == []
    assert silence.of(1501) == ["/a"]


@given(st.lists(st.tuples(st.sampled_from(["/a", "/b", "/c"]), st.integers(0, 2000)), max_size=30))
def test_silent_are_exactly_those_last_heard_longer_ago_than_the_limit(heard: list[tuple[str, int]]) -> None:
    silence, last = Silence(["/a", "/b"], 500), dict[str, int]()
    for topic, now_ns in sorted(heard, key=lambda entry: entry[1]):
        silence.heard(topic, now_ns)
        last[topic] = now_ns
    expected = {topic for topic in ("/a", "/b") if topic in last and 2000 - last[topic] > 500}
    found = silence.of(2000)
    assert set(found) == expected
    assert [last[topic] for topic in found] == sorted(last[topic] for topic in found)
