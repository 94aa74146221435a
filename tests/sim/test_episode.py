from __future__ import annotations

from sim.adapter import Scene
from sim.episode import Episode

SCENE = Scene("Reach-v0", 1, "reach", 3)


def test_nothing_counts_before_the_first_reset() -> None:
    episode = Episode(SCENE, reset_id=0, max_steps=3)
    episode.start()
    episode.observe(True)
    assert not (episode.running or episode.done or episode.success_once) and episode.success


def test_success_ends_it_and_a_new_start_does_not_revive_it() -> None:
    episode = Episode(SCENE, reset_id=1, max_steps=3)
    episode.start()
    episode.observe(False)
    assert not episode.done
    episode.observe(True)
    episode.observe(False)
    assert episode.done and episode.success_once and not episode.success
    episode.stop()
    episode.start()
    assert not episode.running


def test_the_limit_ends_it_and_zero_is_no_limit() -> None:
    for limit, done in ((3, True), (0, False)):
        episode = Episode(SCENE, reset_id=1, max_steps=limit)
        episode.start()
        episode.step = 3
        episode.observe(False)
        assert episode.done is done
