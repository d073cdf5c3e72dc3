"""The micro-batcher: many requests share one model, and none waits behind another's length.

A request is cut into windows. The waiting requests put windows forward in turn, one each, until a round holds
its budget of tokens; the round is sorted by length and given to the model, on a thread, while the next one is
made up. So a short request waits for a round to end, not for the article before it. What nobody waits for any
longer (deadline over, client gone) is not run, and a round that fails takes only its own requests with it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, TypeVar

from serving.errors import SaysoError
from serving.metrics import Observer
from serving.predictor import Article, Prediction, WindowScores
from serving.windows import Window

T = TypeVar("T")

# Requests of more characters are tokenised and read off on a thread; below, the hop costs more than the work.
INLINE_CHARS = 4_000
# The first guess at tokens a second, until rounds were timed; only Retry-After depends on it.
_FIRST_RATE = 5_000.0


class Model(Protocol):
    """The three steps of a predictor."""

    def prepare(self, article: Article) -> list[Window]:
        """Return the article's windows, in order."""

    def run(self, windows: Sequence[Window]) -> list[WindowScores]:
        """Return each window's scores, in order."""

    def assemble(self, windows: Sequence[Window], scores: Sequence[WindowScores]) -> list[Prediction]:
        """Return the article's predictions from its windows and their scores."""


@dataclass(frozen=True)
class BatchLimits:
    """What one worker takes on.

    A round has up to ``batch_tokens``, and ``rounds`` of them run at once: a second one keeps the cores busy
    while the first comes to its end. At most ``queue_requests`` are under way, with ``queue_tokens`` waiting.
    """

    batch_tokens: int = 1024
    rounds: int = 2
    queue_requests: int = 256
    queue_tokens: int = 1_000_000
    deadline_s: float = 60.0


class QueueFullError(SaysoError):
    """The queue is full; the request may come again after ``retry_after_s`` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many requests are waiting; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class DeadlineError(SaysoError):
    """The request was not answered in time."""


class DrainingError(SaysoError):
    """The service is stopping (or has not started) and takes no requests."""


class RoundError(SaysoError):
    """The model failed on a round that held a window of this request; ``__cause__`` says how."""


@dataclass(eq=False)
class _Job:
    """One request's windows, and what has come back for them."""

    windows: list[Window]
    done: asyncio.Future[None]
    since: float
    next: int = 0
    missing: int = 0
    dropped: bool = False
    scores: list[WindowScores | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing = len(self.windows)
        self.scores = [None] * len(self.windows)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A window that has its turn, and whose it is."""

    job: _Job
    index: int

    @property
    def window(self) -> Window:
        return self.job.windows[self.index]


class Batcher:
    """Answers articles through one model; ``start`` it in the event loop that calls it."""

    def __init__(
        self, model: Model, limits: BatchLimits | None = None, *, observer: Observer | None = None
    ) -> None:
        self._model = model
        self._limits = limits or BatchLimits()
        self._observer = observer or Observer()
        self._waiting: deque[_Job] = deque()
        self._waiting_tokens = 0
        self._requests = 0
        self._tokens_per_s = _FIRST_RATE
        self._threads = ThreadPoolExecutor(self._limits.rounds, thread_name_prefix="sayso-round")
        self._drivers: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._draining = False

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return bool(self._drivers) and not self._draining and not any(d.done() for d in self._drivers)

    async def start(self) -> None:
        """Begin to take requests."""
        self._drivers = [asyncio.create_task(self._drive()) for _ in range(self._limits.rounds)]

    async def stop(self) -> None:
        """Refuse new requests, wait until those under way are answered, and end."""
        self._draining = True
        while self._requests:
            self._idle.clear()
            await self._idle.wait()
        for driver in self._drivers:
            driver.cancel()
        await asyncio.gather(*self._drivers, return_exceptions=True)
        self._threads.shutdown()

    async def predict(self, articles: Sequence[Article]) -> list[list[Prediction]]:
        """Return a prediction for every sentence of every article, as the model's own ``predict`` would.

        Raises QueueFullError, DeadlineError, DrainingError or RoundError. When the deadline passes, or the
        caller is cancelled, what the request still has waiting is dropped.
        """
        self._admit()
        job: _Job | None = None
        deadline = asyncio.timeout(self._limits.deadline_s)
        try:
            async with deadline:
                chars = sum(len(a.title) + sum(map(len, a.sentences)) for a in articles)
                prepared = await offload(chars, lambda: [self._model.prepare(a) for a in articles])
                job = self._enqueue([window for windows in prepared for window in windows])
                await job.done
                scores = iter([s for s in job.scores if s is not None])
                return await offload(chars, lambda: self._assemble(prepared, scores))
        except TimeoutError:
            if deadline.expired():
                raise DeadlineError(f"not answered within {self._limits.deadline_s:g} s") from None
            raise
        finally:
            self._release(job)

    def _assemble(
        self, prepared: list[list[Window]], scores: Iterator[WindowScores]
    ) -> list[list[Prediction]]:
        return [self._model.assemble(windows, list(islice(scores, len(windows)))) for windows in prepared]

    def _admit(self) -> None:
        if not self.ready:
            raise DrainingError("the service takes no requests at present")
        if self._requests >= self._limits.queue_requests:
            raise QueueFullError(self._retry_after_s())
        self._requests += 1
        self._observe_queue()

    def _release(self, job: _Job | None) -> None:
        self._requests -= 1
        if job is not None and not job.dropped:
            self._drop(job)
        if not self._requests:
            self._idle.set()
        self._observe_queue()

    def _enqueue(self, windows: list[Window]) -> _Job:
        """Return the windows as a job in the queue. An empty queue takes any size, lest some never get in."""
        tokens = sum(window.length for window in windows)
        if self._waiting_tokens and self._waiting_tokens + tokens > self._limits.queue_tokens:
            raise QueueFullError(self._retry_after_s())
        loop = asyncio.get_running_loop()
        job = _Job(windows, loop.create_future(), since=loop.time())
        if not windows:
            job.done.set_result(None)
            return job
        self._waiting.append(job)
        self._waiting_tokens += tokens
        self._wake.set()
        self._observe_queue()
        return job

    def _drop(self, job: _Job) -> None:
        """Take what the job still has waiting out of the count; its turn in the queue then passes it over."""
        job.dropped = True
        self._waiting_tokens -= sum(window.length for window in job.windows[job.next :])

    def _retry_after_s(self) -> int:
        return min(60, math.ceil(self._waiting_tokens / self._tokens_per_s) or 1)

    async def _drive(self) -> None:
        """Run round after round."""
        loop = asyncio.get_running_loop()
        while True:
            while not (turns := self._next_round()):
                self._wake.clear()
                await self._wake.wait()
            began = loop.time()
            outcome = loop.run_in_executor(self._threads, self._model.run, [turn.window for turn in turns])
            await asyncio.wait([outcome])
            self._deliver(turns, outcome)
            self._observe_round(turns, loop.time() - began)

    def _next_round(self) -> list[_Turn]:
        """Return windows in turn from the waiting requests, the longest first, or one beyond the budget."""
        turns: list[_Turn] = []
        room = self._limits.batch_tokens
        while self._waiting:
            job = self._waiting[0]
            if not job.dropped:
                length = job.windows[job.next].length
                if turns and length > room:
                    break
                turns.append(self._take_turn(job))
                room -= length
            self._waiting.popleft()
            if not job.dropped and job.next < len(job.windows):
                self._waiting.append(job)
        return sorted(turns, key=lambda turn: -turn.window.length)

    def _take_turn(self, job: _Job) -> _Turn:
        turn = _Turn(job, job.next)
        if not job.next:
            self._observer.waited(asyncio.get_running_loop().time() - job.since)
        job.next += 1
        self._waiting_tokens -= turn.window.length
        return turn

    def _deliver(self, turns: list[_Turn], outcome: asyncio.Future[list[WindowScores]]) -> None:
        if (error := outcome.exception()) is not None:
            for turn in turns:
                self._fail(turn.job, error)
            return
        for turn, scores in zip(turns, outcome.result(), strict=True):
            job = turn.job
            job.scores[turn.index] = scores
            job.missing -= 1
            if not job.missing and not job.done.done():
                job.done.set_result(None)

    def _fail(self, job: _Job, error: BaseException) -> None:
        if not job.dropped:
            self._drop(job)
        if not job.done.done():
            failure = RoundError("the model failed on this request")
            failure.__cause__ = error
            job.done.set_exception(failure)

    def _observe_queue(self) -> None:
        self._observer.queue(requests=self._requests, tokens=self._waiting_tokens)

    def _observe_round(self, turns: list[_Turn], seconds: float) -> None:
        tokens = sum(turn.window.length for turn in turns)
        if seconds > 0:
            self._tokens_per_s += 0.1 * (self._limits.rounds * tokens / seconds - self._tokens_per_s)
        self._observer.ran(windows=len(turns), tokens=tokens, seconds=seconds)
        self._observe_queue()


async def offload(chars: int, work: Callable[[], T]) -> T:
    """Return what ``work`` returns; work on many characters is done on a thread, off the event loop."""
    return work() if chars <= INLINE_CHARS else await asyncio.to_thread(work)
