"""What several threads want at once is fetched by one of them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from microtome.storage._flights import Flights, flights_to


def test_what_is_under_way_is_not_fetched_twice():
    flights, asked, lock = Flights(), [], threading.Lock()

    def fetch(mine, hand_over):
        with lock:
            asked.extend(mine)
        threading.Event().wait(0.02)
        for name in mine:
            hand_over(name, name * 2)

    start = threading.Barrier(6)

    def work(number):
        start.wait()
        # Overlapping, and in different orders: two who wait for each other would hang here.
        names = list(range(number, number + 5))
        return flights.bring(names[::-1] if number % 2 else names, fetch)

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, range(6)))
    assert found == [{n: 2 * n for n in range(k, k + 5)} for k in range(6)]
    assert sorted(asked) == list(range(10))
    # Nothing stays behind: the next asks anew.
    assert flights.bring([3], fetch) == {3: 6}
    assert asked.count(3) == 2


@pytest.mark.parametrize("error", [ValueError("the store said no"), KeyboardInterrupt()])
def test_an_error_is_told_to_all_who_wait_and_an_interrupt_to_none(error):
    flights, begun, go_on = Flights(), threading.Event(), threading.Event()

    def fails(mine, hand_over):
        hand_over("a", 1)
        begun.set()
        go_on.wait(10)
        raise error

    def works(mine, hand_over):
        for name in mine:
            hand_over(name, 2)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.bring, ["a", "b"], fails)
        begun.wait(10)
        second = pool.submit(flights.bring, ["a", "b"], works)
        threading.Event().wait(0.05)
        go_on.set()
        with pytest.raises(type(error)):
            first.result(10)
        if isinstance(error, ValueError):
            with pytest.raises(ValueError, match="the store said no"):
                second.result(10)
        else:
            assert second.result(10) == {"a": 2, "b": 2}
    assert flights.bring(["b"], works) == {"b": 2}


def test_flights_to_one_address_are_shared():
    one = flights_to("here")
    assert flights_to("here") is one
    assert flights_to("there") is not one
