"""What an operator's Prometheus reads of the service, beside what BentoML counts by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import SimpleNamespace
from typing import Literal

from serving.labels import Label

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Observer:
    """Is told what happens, and does nothing with it; the metrics derive from it."""

    def queue(self, *, requests: int, tokens: int) -> None:
        """Take note of the queue: requests under way, tokens that wait."""

    def ran(self, *, windows: int, tokens: int, seconds: float) -> None:
        """Take note of a round of so many windows and tokens."""

    def waited(self, seconds: float) -> None:
        """Take note of how long a request waited for its first round."""

    def answered(self, *, route: str, status: int, seconds: float) -> None:
        """Take note of an answer, whatever it was."""

    def labelled(self, counts: Mapping[Label, int]) -> None:
        """Take note of how many sentences got each label."""

    def loaded(self, model_version: str) -> None:
        """Take note of the model that answers from now on."""


class Metrics(Observer):
    """Requests, queue, rounds and labels as Prometheus reads them; one object a process."""

    @cached_property
    def _instruments(self) -> SimpleNamespace:
        # prometheus_client decides when it is imported whether workers share their figures, and BentoML tells it so
        # through the environment; hence the late import.
        from prometheus_client import Counter, Gauge, Histogram

        def gauge(
            name: str, text: str, *labels: str, mode: Literal["livesum", "livemax"] = "livesum"
        ) -> Gauge:
            return Gauge(name, text, labels, multiprocess_mode=mode)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets)

        return SimpleNamespace(
            requests=gauge("sayso_queue_requests", "Requests under way"),
            waiting=gauge("sayso_queue_tokens", "Tokens that wait for their round"),
            wait=histogram("sayso_queue_wait_seconds", "Wait of a request for its first round"),
            round=histogram("sayso_round_seconds", "Duration of a round"),
            round_windows=histogram("sayso_round_windows", "Windows in a round", buckets=_POWERS),
            windows=Counter("sayso_windows", "Windows (pieces of articles, lone sentences) read"),
            tokens=Counter("sayso_tokens", "Tokens read"),
            answers=Counter("sayso_requests", "Answers by route and status", ["route", "code"]),
            seconds=histogram("sayso_request_seconds", "Duration of a request", "route"),
            labels=Counter("sayso_labels", "Sentences by the label they got", ["label"]),
            model=gauge("sayso_model", "1 for the version that answers", "version", mode="livemax"),
        )

    def queue(self, *, requests: int, tokens: int) -> None:
        """Record the queue's depth."""
        self._instruments.requests.set(requests)
        self._instruments.waiting.set(tokens)

    def ran(self, *, windows: int, tokens: int, seconds: float) -> None:
        """Record a round."""
        self._instruments.round.observe(seconds)
        self._instruments.round_windows.observe(windows)
        self._instruments.windows.inc(windows)
        self._instruments.tokens.inc(tokens)

    def waited(self, seconds: float) -> None:
        """Record how long a request waited for its first round."""
        self._instruments.wait.observe(seconds)

    def answered(self, *, route: str, status: int, seconds: float) -> None:
        """Record an answer."""
        self._instruments.answers.labels(route, str(status)).inc()
        self._instruments.seconds.labels(route).observe(seconds)

    def labelled(self, counts: Mapping[Label, int]) -> None:
        """Record the labels given, whose shares tell when the news (or the model) has drifted."""
        for label, count in counts.items():
            self._instruments.labels.labels(label.value).inc(count)

    def loaded(self, model_version: str) -> None:
        """Record the model's version."""
        self._instruments.model.labels(model_version).set(1)
