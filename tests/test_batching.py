"""The micro-batcher gives each request what it would get alone, and keeps its bounds at all times."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching import (
    Batcher,
    BatchLimits,
    DeadlineError,
    DrainingError,
    QueueFullError,
    RoundError,
)
from serving.labels import LABELS, VOICES, Label, Voice
from serving.metrics import Observer
from serving.predictor import Article, Prediction, WindowScores
from serving.windows import Window

T = TypeVar("T")


class FakeModel:
    """Its sentences are ``length:number``: a window of that length, whose doubt score is the number."""

    def __init__(self, *, gate: threading.Event | None = None, poison: int | None = None) -> None:
        self.rounds: list[list[tuple[int, int]]] = []
        self.gate = gate
        self.poison = poison
        self.started = threading.Event()

    def prepare(self, article: Article) -> list[Window]:
        pairs = [tuple(map(int, sentence.split(":"))) for sentence in article.sentences]
        return [
            Window([n] * size, [(0, size)], i, range(i, i + 1), [False]) for i, (size, n) in enumerate(pairs)
        ]

    def run(self, windows: Sequence[Window]) -> list[WindowScores]:
        self.rounds.append([(window.length, window.token_ids[0]) for window in windows])
        self.started.set()
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.poison in [window.token_ids[0] for window in windows]:
            raise RuntimeError("poisoned")
        return [WindowScores(np.full((1, 5), 0.2), np.array([float(w.token_ids[0])])) for w in windows]

    def assemble(self, windows: Sequence[Window], scores: Sequence[WindowScores]) -> list[Prediction]:
        even, fifth = dict.fromkeys(LABELS, 0.25), dict.fromkeys(VOICES, 0.2)
        numbers = [float(score.doubt[0]) for _, score in zip(windows, scores, strict=True)]
        return [Prediction(Label.OTHER, 0.25, even, Voice.NONE, fifth, False, n, False) for n in numbers]

    @property
    def numbers_run(self) -> list[int]:
        return [number for one in self.rounds for _, number in one]


class Depths(Observer):
    """Keeps the deepest that the queue has been."""

    def __init__(self) -> None:
        self.requests = self.tokens = self.waits = 0
        self.last = (0, 0)

    def queue(self, *, requests: int, tokens: int) -> None:
        self.requests, self.tokens = max(self.requests, requests), max(self.tokens, tokens)
        self.last = (requests, tokens)

    def waited(self, seconds: float) -> None:
        assert seconds >= 0
        self.waits += 1


def numbers(answer: list[list[Prediction]]) -> list[list[float]]:
    return [[prediction.doubt_score for prediction in article] for article in answer]


def with_batcher(
    work: Callable[[Batcher], Awaitable[T]],
    model: FakeModel,
    *,
    observer: Observer | None = None,
    **limits: Any,
) -> T:
    """Return what ``work`` does with a started batcher, which is stopped again."""

    async def run() -> T:
        batcher = Batcher(model, BatchLimits(**limits), observer=observer)
        await batcher.start()
        try:
            return await work(batcher)
        finally:
            if model.gate is not None:
                model.gate.set()
            await batcher.stop()

    return asyncio.run(asyncio.wait_for(run(), 60))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def article(*sentences: tuple[int, int]) -> Article:
    return Article([f"{size}:{number}" for size, number in sentences])


def background(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.ensure_future(work)


@st.composite
def requests(draw: st.DrawFn) -> list[list[Article]]:
    """Draw requests of several articles whose sentences are numbered through."""
    shape = st.lists(st.lists(st.lists(st.integers(1, 70), max_size=6), max_size=4), min_size=1, max_size=8)
    counter = iter(range(10_000))
    return [[article(*((size, next(counter)) for size in a)) for a in request] for request in draw(shape)]


def expected(request: list[Article]) -> list[list[float]]:
    return [[float(sentence.split(":")[1]) for sentence in one.sentences] for one in request]


@settings(deadline=None, max_examples=60)
@given(requests(), st.integers(1, 100), st.integers(1, 3))
def test_answers_are_in_order_and_complete_for_any_mix(
    mix: list[list[Article]], budget: int, rounds: int
) -> None:
    model, depths = FakeModel(), Depths()

    async def work(batcher: Batcher) -> list[list[list[float]]]:
        return [numbers(answer) for answer in await asyncio.gather(*map(batcher.predict, mix))]

    answers = with_batcher(work, model, observer=depths, batch_tokens=budget, rounds=rounds)
    assert answers == [expected(request) for request in mix]
    assert sorted(model.numbers_run) == list(range(len(model.numbers_run)))
    for one in model.rounds:
        assert len(one) == 1 or sum(size for size, _ in one) <= budget
        assert one == sorted(one, key=lambda window: -window[0])
    assert depths.last == (0, 0)
    assert depths.waits == sum(any(one.sentences for one in request) for request in mix)


@settings(deadline=None, max_examples=60)
@given(requests(), st.data())
def test_cancelled_requests_take_nothing_from_the_others(
    mix: list[list[Article]], data: st.DataObject
) -> None:
    model, depths = FakeModel(), Depths()
    doomed = data.draw(st.sets(st.integers(0, len(mix) - 1)))
    yields = data.draw(st.lists(st.integers(0, 5), min_size=len(mix), max_size=len(mix)))

    async def work(batcher: Batcher) -> list[Any]:
        tasks = [background(batcher.predict(request)) for request in mix]
        for index in doomed:
            for _ in range(yields[index]):
                await asyncio.sleep(0)
            tasks[index].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = with_batcher(work, model, observer=depths, batch_tokens=64)
    for index, (request, answer) in enumerate(zip(mix, answers, strict=True)):
        if isinstance(answer, asyncio.CancelledError):
            assert index in doomed
        else:
            assert numbers(answer) == expected(request)
    assert depths.last == (0, 0)


@settings(deadline=None, max_examples=40)
@given(requests(), st.integers(1, 6), st.integers(16, 200))
def test_the_queue_keeps_its_bounds(mix: list[list[Article]], most_requests: int, most_tokens: int) -> None:
    model, depths = FakeModel(gate=threading.Event()), Depths()
    sizes = [sum(int(s.split(":")[0]) for one in request for s in one.sentences) for request in mix]

    async def work(batcher: Batcher) -> list[Any]:
        tasks = [background(batcher.predict(request)) for request in mix]
        for _ in range(3):
            await asyncio.sleep(0)
        assert model.gate is not None
        model.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    limits = {"batch_tokens": 16, "queue_requests": most_requests, "queue_tokens": most_tokens}
    answers = with_batcher(work, model, observer=depths, **limits)
    assert depths.requests <= most_requests
    assert depths.tokens <= max(most_tokens, *sizes)
    for request, answer in zip(mix, answers, strict=True):
        assert isinstance(answer, QueueFullError) or numbers(answer) == expected(request)
    assert depths.last == (0, 0)


def test_a_short_request_waits_for_one_round_and_not_for_a_long_article() -> None:
    model = FakeModel(gate=threading.Event())

    async def work(batcher: Batcher) -> None:
        long = background(batcher.predict([article(*((30, n) for n in range(50)))]))
        await until(model.started.is_set)
        short = background(batcher.predict([article((5, 999))]))
        await asyncio.sleep(0)
        assert model.gate is not None
        model.gate.set()
        await short
        assert not long.done()
        await long

    with_batcher(work, model, batch_tokens=64)
    # Two rounds of two windows were running when the short request came; one of the next two has it.
    assert model.numbers_run.index(999) < 8


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    model = FakeModel(gate=threading.Event())

    async def work(batcher: Batcher) -> None:
        first = background(batcher.predict([article((8, 1))]))
        await until(model.started.is_set)
        waiting = background(batcher.predict([article((100_000, 2))]))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as caught:
            await batcher.predict([article((8, 3))])
        assert 1 < caught.value.retry_after_s <= 60
        assert model.gate is not None
        model.gate.set()
        assert numbers(await first) + numbers(await waiting) == [[1.0], [2.0]]
        assert numbers(await batcher.predict([article((8, 3))])) == [[3.0]]

    with_batcher(work, model, queue_tokens=50, rounds=1)


def test_too_many_requests_are_refused_before_they_are_tokenised() -> None:
    model = FakeModel(gate=threading.Event())

    async def work(batcher: Batcher) -> None:
        first = background(batcher.predict([article((8, 1))]))
        await until(model.started.is_set)
        with pytest.raises(QueueFullError, match="try again in 1 s"):
            await batcher.predict([Article(["never read"])])
        assert model.gate is not None
        model.gate.set()
        await first

    with_batcher(work, model, queue_requests=1)


def test_after_the_deadline_a_request_fails_and_what_it_had_waiting_is_not_run() -> None:
    model = FakeModel(gate=threading.Event())

    async def work(batcher: Batcher) -> None:
        with pytest.raises(DeadlineError, match=r"not answered within 0\.1 s"):
            await batcher.predict([article((10, 1), (10, 2), (10, 3))])
        assert model.gate is not None
        model.gate.set()
        assert numbers(await batcher.predict([article((10, 4))])) == [[4.0]]

    with_batcher(work, model, deadline_s=0.1, batch_tokens=10, rounds=1)
    assert model.numbers_run == [1, 4]


def test_a_failed_round_fails_only_the_requests_that_were_in_it() -> None:
    model = FakeModel(gate=threading.Event(), poison=3)

    async def work(batcher: Batcher) -> list[Any]:
        first = background(batcher.predict([article((10, 1))]))
        await until(model.started.is_set)
        mixed = [article((10, 2)), article((10, 3)), article((10, 4), (10, 5))]
        tasks = [background(batcher.predict([one])) for one in mixed]
        await asyncio.sleep(0)
        assert model.gate is not None
        model.gate.set()
        answers = await asyncio.gather(first, *tasks, return_exceptions=True)
        return [*answers, await batcher.predict([article((10, 6))])]

    first, with_poison, poison, split, last = with_batcher(work, model, batch_tokens=20, rounds=1)
    assert numbers(first) == [[1.0]]
    assert isinstance(with_poison, RoundError)
    assert isinstance(poison, RoundError)
    assert isinstance(poison.__cause__, RuntimeError)
    assert numbers(split) == [[4.0, 5.0]]
    assert numbers(last) == [[6.0]]


def test_a_request_without_sentences_is_answered_with_nothing() -> None:
    async def work(batcher: Batcher) -> list[list[Prediction]]:
        return await batcher.predict([])

    assert with_batcher(work, FakeModel()) == []


def test_a_stopping_batcher_answers_what_it_has_and_refuses_what_comes() -> None:
    model = FakeModel(gate=threading.Event())

    async def run() -> None:
        batcher = Batcher(model, BatchLimits(batch_tokens=10))
        assert not batcher.ready
        with pytest.raises(DrainingError):
            await batcher.predict([article((1, 1))])
        await batcher.start()
        assert batcher.ready
        accepted = background(batcher.predict([article((10, 1), (10, 2))]))
        await until(model.started.is_set)
        stopping = background(batcher.stop())
        await asyncio.sleep(0)
        assert not batcher.ready
        with pytest.raises(DrainingError):
            await batcher.predict([article((1, 3))])
        assert model.gate is not None
        model.gate.set()
        assert numbers(await accepted) == [[1.0, 2.0]]
        await stopping

    asyncio.run(asyncio.wait_for(run(), 60))


def test_large_requests_are_tokenised_off_the_event_loop() -> None:
    class SlowToPrepare(FakeModel):
        def prepare(self, article: Article) -> list[Window]:
            assert threading.current_thread() is not threading.main_thread()
            time.sleep(0.2)
            return super().prepare(article)

    async def work(batcher: Batcher) -> int:
        ticks = 0
        large = background(batcher.predict([Article(["1:1"] * 3000)]))
        while not large.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert with_batcher(work, SlowToPrepare()) >= 5
