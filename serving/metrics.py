"""What an operator's Prometheus reads of the queue, beside what BentoML counts of requests."""

from __future__ import annotations

from serving.batching import Observer

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class QueueMetrics(Observer):
    """The queue's depth and wait, and the size of rounds. Make it once per process.

    prometheus_client decides when it is imported whether workers share their figures, and BentoML tells it so
    through the environment; hence the late import.
    """

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, multiprocess_mode="livesum")

        self._requests = gauge("sayso_queue_requests", "Requests under way")
        self._tokens = gauge("sayso_queue_tokens", "Tokens that wait for their round")
        self._wait = Histogram(
            "sayso_queue_wait_seconds", "Wait of a request for its first round", buckets=_SECONDS
        )
        self._round = Histogram("sayso_round_seconds", "Duration of a round", buckets=_SECONDS)
        self._windows = Counter("sayso_windows", "Windows (pieces of articles, lone sentences) read")
        self._read = Counter("sayso_tokens", "Tokens read")

    def queue(self, *, requests: int, tokens: int) -> None:
        """Record the queue's depth."""
        self._requests.set(requests)
        self._tokens.set(tokens)

    def ran(self, *, windows: int, tokens: int, seconds: float) -> None:
        """Record a round."""
        self._round.observe(seconds)
        self._windows.inc(windows)
        self._read.inc(tokens)

    def waited(self, seconds: float) -> None:
        """Record how long a request waited for its first round."""
        self._wait.observe(seconds)
