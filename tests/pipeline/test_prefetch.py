"""Reading ahead in another thread: order, errors and stopping."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dlgenome.pipeline.prefetch import prefetch


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dlgenome-reader"]


def test_items_come_in_order_and_the_thread_ends() -> None:
    with prefetch(iter(range(50)), ahead=2) as items:
        assert list(items) == list(range(50))
    assert not reader_threads()


def test_no_more_than_the_wanted_number_is_made_ahead() -> None:
    made: list[int] = []

    def count() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with prefetch(count(), ahead=3) as items:
        assert next(items) == 0
        time.sleep(0.1)
        # One taken, three waiting, one more in the maker's hand.
        assert len(made) <= 5
    assert len(made) < 100
    assert not reader_threads()


def test_an_error_is_raised_where_its_item_would_have_been() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise ValueError("no second item")

    with prefetch(fail(), ahead=5) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="no second item"):
            next(items)
    assert not reader_threads()


def test_an_error_of_the_consumer_stops_the_maker() -> None:
    def forever() -> Iterator[int]:
        while True:
            yield 0

    def consume() -> None:
        with prefetch(forever(), ahead=1) as items:
            next(items)
            raise KeyError

    with pytest.raises(KeyError):
        consume()
    assert not reader_threads()
