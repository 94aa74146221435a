from __future__ import annotations

import threading

from e0_ros.core.mailbox import Mailbox


def test_the_latest_wins_and_replacements_are_counted() -> None:
    box: Mailbox[int] = Mailbox()
    assert [box.put(1), box.put(2), box.put(3)] == [False, True, True]
    assert box.take(0.0) == 3
    assert box.take(0.0) is None
    assert box.replaced == 2


def test_clear_throws_the_item_away() -> None:
    box: Mailbox[int] = Mailbox()
    box.put(1)
    box.clear()
    assert box.take(0.0) is None


def test_take_wakes_for_an_item_and_for_the_end() -> None:
    box: Mailbox[int] = Mailbox()
    taken: list[int | None] = []
    first_done = threading.Event()

    def work() -> None:
        taken.append(box.take())
        first_done.set()
        taken.append(box.take())

    worker = threading.Thread(target=work)
    worker.start()
    box.put(7)
    assert first_done.wait(10.0)
    box.close()
    worker.join(10.0)
    assert taken == [7, None] and box.closed


def test_a_busy_reader_gets_the_newest_and_never_an_older_one_again() -> None:
    box: Mailbox[int] = Mailbox()
    seen: list[int] = []

    def work() -> None:
        while (item := box.take(10.0)) is not None:
            seen.append(item)
            if item == 2000:
                return

    worker = threading.Thread(target=work)
    worker.start()
    for item in range(1, 2001):
        box.put(item)
    worker.join(10.0)
    assert seen == sorted(set(seen)) and seen[-1] == 2000
    assert len(seen) + box.replaced == 2000
