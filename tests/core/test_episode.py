import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_ros.core.episode import OUTCOMES, Ended, Episode, EpisodeLife, Mode, Refused


def never(_: str) -> bool:
    return False


@pytest.mark.parametrize("name", ["../x", "a/b", "A", "a b", "é", "x" * 65, ".", "a.partial", "a\0", "a\n"])
def test_an_id_that_must_not_become_a_path_is_refused(name: str, record_property) -> None:
    refused = EpisodeLife().check_start(name, 0, never)
    assert isinstance(refused, Refused) and "allowed" in refused.reason
    record_property("figure", "name refused")


def test_an_empty_id_is_made_from_the_clock_and_never_taken_twice() -> None:
    used = {"20240102-030405", "20240102-030405-2"}
    wall_ns = 1_704_164_645 * 10**9
    assert EpisodeLife().check_start("", wall_ns, used.__contains__) == "20240102-030405-3"


def test_a_taken_id_is_refused() -> None:
    assert isinstance(EpisodeLife().check_start("a", 0, lambda name: name == "a"), Refused)


def test_a_second_start_is_refused_and_names_the_running_one() -> None:
    life = EpisodeLife()
    life.start(Episode("one", 5))
    refused = life.check_start("two", 0, never)
    assert isinstance(refused, Refused) and "one" in refused.reason


def test_an_unknown_outcome_keeps_the_episode_running() -> None:
    life = EpisodeLife()
    life.start(Episode("one", 5))
    refused = life.end("sucess", "", 6)
    assert isinstance(refused, Refused) and "'success'" in refused.reason
    assert life.mode is Mode.RECORDING


def test_a_fault_ends_the_recording_but_not_the_episode() -> None:
    life = EpisodeLife()
    life.start(Episode("one", 5))
    life.fault("disk full")
    assert life.episode is not None
    ended = life.end("success", "", 2_000_000_005)
    assert isinstance(ended, Ended) and ended.duration_s == 2.0
    assert (life.mode, life.reason) == (Mode.FAULT, "disk full")
    life.start(Episode("two", 9))
    assert (life.mode, life.reason) == (Mode.RECORDING, "")


@given(st.lists(st.sampled_from(["start", "fault", *OUTCOMES, "nonsense"])))
def test_there_is_at_most_one_episode_and_each_ends_once(requests: list[str]) -> None:
    life, started, ended = EpisodeLife(), 0, 0
    for now, request in enumerate(requests):
        if request == "start":
            name = life.check_start(f"e{now}", 0, never)
            assert isinstance(name, Refused) == (started > ended)
            if isinstance(name, str):
                life.start(Episode(name, now))
                started += 1
        elif request == "fault" and life.episode is not None:
            life.fault("why")
        else:
            result = life.end(request, "", now)
            assert isinstance(result, Ended) == (started > ended and request in OUTCOMES)
            ended += isinstance(result, Ended)
    assert (life.episode is not None) == (started > ended)
