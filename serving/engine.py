"""What a worker holds: one loaded, warmed-up model with the micro-batcher in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from serving.artifact import Calibration
from serving.batching import Batcher, BatchLimits, DrainingError
from serving.metrics import Metrics, Observer
from serving.predictor import Article, Prediction, Predictor
from serving.settings import Settings

# The first passes of a shape allocate memory; these are a lone sentence, a short article and a full window.
_WARM_UP = [Article(["The minister denied the report."] * count, title="Warm-up") for count in (1, 8, 80)]


class Engine:
    """Answers articles between ``start`` and ``stop``."""

    def __init__(self, settings: Settings, *, observer: Observer | None = None) -> None:
        self.settings = settings
        self.observer = observer or Metrics()
        self.model_version = ""
        self.calibration = Calibration()
        self._batcher: Batcher | None = None

    def load(self) -> Predictor:
        """Return the model that the settings name; raise ArtifactError where it cannot be used."""
        return Predictor.load(self.settings.model, threads=self.settings.worker_threads)

    async def start(self) -> None:
        """Load the model, warm it up and begin to take requests."""
        predictor = await asyncio.to_thread(self.load)
        await asyncio.to_thread(predictor.predict, _WARM_UP)
        self._batcher = Batcher(predictor, self._limits(), observer=self.observer)
        await self._batcher.start()
        self.model_version = predictor.manifest.model_version
        self.calibration = predictor.manifest.calibration
        self.observer.loaded(self.model_version)

    async def stop(self) -> None:
        """Answer what was accepted, and end."""
        if self._batcher is not None:
            await self._batcher.stop()

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._batcher is not None and self._batcher.ready

    async def predict(self, articles: Sequence[Article]) -> list[list[Prediction]]:
        """Return a prediction for every sentence of every article; raises what ``Batcher.predict`` does."""
        if self._batcher is None:
            raise DrainingError("the service has not started yet")
        return await self._batcher.predict(articles)

    def _limits(self) -> BatchLimits:
        s = self.settings
        return BatchLimits(
            batch_tokens=s.round_tokens,
            queue_requests=s.queue_requests,
            queue_tokens=s.queue_tokens,
            deadline_s=s.deadline_s,
        )
