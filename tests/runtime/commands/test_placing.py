"""Placing: every order is asked for with one key until somebody decides, and what became of it is counted once."""

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
import trio
from trio.testing import MockClock

from runtime.commands.placing import Pace, Placer, Tally, Wanted
from runtime.desk_types import order_id_for
from runtime.order_files import Placement, Withdrawal
from runtime.retail import Skip

Answer = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]

ACCEPTED = httpx.codes.ACCEPTED


def placement(n: int) -> Placement:
    return Placement(n, f"k{n}", {"n": n})


async def place(
    answer: Answer, *wanted: Wanted, at_a_time: int = 4, patience_s: float = 60.0
) -> Tally:
    tally = Tally()
    transport = httpx.MockTransport(answer)  # type: ignore[arg-type]  # Its own type is as loose.
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        await Placer(client, Pace(at_a_time, patience_s), tally).place_all(iter(wanted))
    return tally


def problem(status: int, title: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"title": title, "detail": f"{title}."}, headers=headers)


async def test_a_busy_instance_is_asked_again_with_the_same_key_when_it_says(
    autojump_clock: MockClock,
) -> None:
    asked: list[tuple[str, float]] = []
    answers: Iterator[httpx.Response] = iter(
        [
            problem(503, "Unavailable", **{"Retry-After": "7"}),
            problem(429, "Too many requests", **{"Retry-After": "3600"}),
            problem(500, "Internal Server Error", **{"Retry-After": "soon"}),
            httpx.Response(ACCEPTED),
        ]
    )

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.headers["idempotency-key"], trio.current_time()))
        return next(answers)

    tally = await place(answer, placement(1), patience_s=100)
    assert tally == Tally(accepted=1)
    assert {key for key, _ in asked} == {"k1"}
    times = [at for _, at in asked]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:2] == [7, 30]  # An hour is more than anyone at a terminal waits.
    assert 0 < pauses[2] < 1


async def test_an_answer_that_is_lost_is_asked_for_again(autojump_clock: MockClock) -> None:
    asked: Counter[str] = Counter()

    def answer(request: httpx.Request) -> httpx.Response:
        key = request.headers["idempotency-key"]
        asked[key] += 1
        if asked[key] == 1:
            raise httpx.ReadError("connection reset")
        return httpx.Response(ACCEPTED)

    tally = await place(answer, *map(placement, range(20)))
    assert tally == Tally(accepted=20)
    assert set(asked.values()) == {2}


async def test_one_order_that_nobody_answers_costs_only_itself(autojump_clock: MockClock) -> None:
    """Others are answered for as long as it takes to give up on this one."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1)
        if request.headers["idempotency-key"] == "k1":
            return problem(503, "Unavailable")
        return httpx.Response(ACCEPTED)

    tally = await place(answer, *map(placement, range(200)), patience_s=20)
    assert tally.accepted == 199
    assert tally.unanswered == {"Unavailable": 1}
    assert tally.untried_from_line is None
    assert not tally.is_complete


async def test_where_nobody_answers_at_all_the_rest_is_not_tried(autojump_clock: MockClock) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    tally = await place(answer, *map(placement, range(1, 100)), patience_s=5)
    assert tally.accepted == 0
    assert tally.untried_from_line is not None
    assert tally.unanswered["ConnectError"] < tally.untried_from_line <= 12


async def test_a_refusal_is_final_and_counted_by_its_title(autojump_clock: MockClock) -> None:
    asked = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked == 1:
            faults = [{"field": "items", "message": "too many"}]
            return httpx.Response(422, json={"title": "Invalid body", "errors": faults})
        return httpx.Response(413, text="<html>too large</html>")

    tally = await place(answer, placement(1), placement(2), at_a_time=1)
    assert tally.refused == {"Invalid body": 1, "HTTP 413": 1}
    assert tally.first["Invalid body"] == "line 1: items: too many"
    assert asked == 2
    assert tally.is_complete


async def test_a_cancellation_waits_until_its_order_is_answered(autojump_clock: MockClock) -> None:
    answered: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1 if request.url.path == "/orders" else 0)
        answered.append(request.url.path)
        return httpx.Response(ACCEPTED if len(answered) == 1 else 200)

    tally = await place(answer, placement(1), Withdrawal(2, "k1"))
    assert answered == ["/orders", f"/orders/{order_id_for('k1')}/cancel"]
    assert tally.accepted == 1
    assert tally.cancellations == {"Cancelled": 1}


@pytest.mark.parametrize(
    ("answer", "became"),
    [
        (httpx.Response(200), "Cancelled"),
        (httpx.Response(202), "Being cancelled"),
        (problem(409, "Too late"), "Too late"),
        (problem(404, "No such order"), "No such order"),
    ],
)
async def test_a_cancellation_is_counted_by_what_it_was_told(
    autojump_clock: MockClock, answer: httpx.Response, became: str
) -> None:
    tally = await place(lambda _: answer, Withdrawal(1, "k1"))
    assert tally.cancellations == {became: 1}
    assert tally.is_complete


async def test_skipped_lines_are_counted_and_asked_of_nobody(autojump_clock: MockClock) -> None:
    skips = [Skip(1, "", "not JSON", "here"), Skip(2, "", "not JSON"), Skip(3, "", "no price")]
    tally = await place(lambda _: problem(500, "never asked"), *skips)
    assert tally.skipped == {"not JSON": 2, "no price": 1}
    assert tally.first["not JSON"] == "line 1: here"


async def test_no_more_requests_are_under_way_than_asked_for(autojump_clock: MockClock) -> None:
    under_way = most = 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(1)
        under_way -= 1
        return httpx.Response(ACCEPTED)

    tally = await place(answer, *map(placement, range(30)), at_a_time=5)
    assert tally.accepted == 30
    assert most <= 5
