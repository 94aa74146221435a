from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_policy.data_order import DataOrder, split_episodes, split_takes
from e0_policy.dataset import DatasetError


@pytest.mark.parametrize("world", [1, 2, 4])
def test_order_covers_each_epoch_once_whatever_the_number_of_processes(world):
    orders = [iter(DataOrder(24, 8, 5, rank=r, world=world)) for r in range(world)]
    single = iter(DataOrder(24, 8, 5))
    seen = []
    for _ in range(6):
        step = [next(o) for o in orders]
        assert list(itertools.chain(*step)) == next(single)
        seen += itertools.chain(*step)
    assert sorted(seen[:24]) == sorted(seen[24:]) == list(range(24)) and seen[:24] != seen[24:]


def test_order_resumes_in_the_middle_of_an_epoch():
    whole = list(itertools.islice(DataOrder(10, 4, 1), 9))
    assert list(itertools.islice(DataOrder(10, 4, 1, first=3), 6)) == whole[3:]
    assert whole != list(itertools.islice(DataOrder(10, 4, 2), 9))


def test_split_is_by_episode_and_repeatable():
    training, held = split_episodes(20, 0.1, 0)
    assert len(held) == 2 and sorted(training + held) == list(range(20))
    assert split_episodes(20, 0.1, 0) == (training, held) != split_episodes(20, 0.1, 1)
    assert split_episodes(5, 0.0, 0)[1] == [] and len(split_episodes(5, 0.01, 0)[1]) == 1
    with pytest.raises(DatasetError, match="1 episodes with 10% held out leave none"):
        split_episodes(1, 0.1, 0)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=12), st.integers(0, 5))
def test_the_parts_of_a_take_are_on_one_side(parts, seed):
    takes = [f"{take}" for take, count in enumerate(parts) for _ in range(count)]
    training, held = split_takes(takes, 0.25, seed)
    assert sorted(training + held) == list(range(len(takes))) and training and held
    assert not {takes[e] for e in training} & {takes[e] for e in held}


@given(st.integers(20, 60), st.integers(1, 40), st.integers(0, 5))
def test_takes_keep_their_side_when_others_come(count, more, seed):
    """But for those that the larger number of held-out takes needs."""
    takes = [f"take_{i}" for i in range(count + more)]
    before, after = (set(split_takes(takes[:n], 0.1, seed)[1]) for n in (count, count + more))
    assert (len(before), len(after)) == (round(0.1 * count), round(0.1 * (count + more)))
    assert len({e for e in after if e < count} - before) <= len(after) - len(before)
