"""The one inference path: articles in, predictions out, on ONNX Runtime.

``predict`` is all that most callers need. A server that mixes the windows of many requests in one batch calls its
three steps itself: ``prepare`` (tokenise and cut), ``run`` (the network), ``assemble`` (read off).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from serving.artifact import DEFAULT_MODEL, ONNX, TOKENIZER, Manifest, read_manifest, read_verified
from serving.labels import LABELS, VOICES, Label, Voice, label_scores
from serving.settings import available_cores
from serving.windows import Article, Window, Windows, collate

__all__ = ["Article", "Prediction", "Predictor", "WindowScores"]

# On processors the fused node takes several times as long as the addition and the normalisation that it replaces.
_SLOW_FUSIONS = ["SkipLayerNormFusion"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one sentence. All scores are calibrated probabilities; ``label`` has the highest score."""

    label: Label
    score: float
    scores: dict[Label, float]
    voice: Voice
    voice_scores: dict[Voice, float]
    doubt: bool
    doubt_score: float
    truncated: bool


@dataclass(frozen=True, slots=True)
class WindowScores:
    """The calibrated probabilities for a window's sentences: ``voice`` (s, 5) and ``doubt`` (s,)."""

    voice: NDArray[np.float64]
    doubt: NDArray[np.float64]


class Predictor:
    """A loaded model; any number of threads may use it at once.

    Every window is a pass of its own, and ``threads`` passes run side by side, each on one core. That is as fast as
    padded batches, wastes nothing on padding, and makes an answer independent of what else is being answered:
    dynamic int8 scales its activations by the largest in a pass, so in a shared batch neighbours would sway them.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, tokenizer: Tokenizer, manifest: Manifest, *, threads: int
    ) -> None:
        self.session = session
        self.manifest = manifest
        self.windows = Windows(tokenizer, manifest.limits)
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sayso-inference")

    @classmethod
    def load(
        cls, directory: Path | None = None, *, precision: str = "int8", threads: int | None = None
    ) -> Predictor:
        """Return the predictor of a model directory (default: the embedded model), its files verified.

        ``precision`` is ``int8`` or ``fp32``; ``threads`` is the number of passes side by side, by default one a core.
        """
        directory = DEFAULT_MODEL if directory is None else Path(directory)
        manifest = read_manifest(directory)
        network = read_verified(directory, ONNX[precision], manifest)
        tokenizer = Tokenizer.from_str(read_verified(directory, TOKENIZER, manifest).decode("utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            network, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOW_FUSIONS
        )
        return cls(session, tokenizer, manifest, threads=threads or available_cores())

    def predict(self, articles: Sequence[Article]) -> list[list[Prediction]]:
        """Return a prediction for every sentence of every article, each read in its article's context."""
        prepared = [self.prepare(article) for article in articles]
        scores = iter(self.run([window for windows in prepared for window in windows]))
        return [self.assemble(windows, [next(scores) for _ in windows]) for windows in prepared]

    def prepare(self, article: Article) -> list[Window]:
        """Return the article's windows, in order."""
        return self.windows.cut(self.windows.encode(article))

    def run(self, windows: Sequence[Window]) -> list[WindowScores]:
        """Return the scores of each window's sentences, in order."""
        if len(windows) < 2 or self.threads == 1:
            return [self._score(window) for window in windows]
        # The longest first, so that no core is left with a long one at the end.
        order = sorted(range(len(windows)), key=lambda i: -windows[i].length)
        scores = dict(zip(order, self._pool.map(self._score, [windows[i] for i in order]), strict=True))
        return [scores[i] for i in range(len(windows))]

    def _score(self, window: Window) -> WindowScores:
        voice_logits, doubt_logits = self.session.run(None, collate([window]).unpadded())
        calibration = self.manifest.calibration
        voice = _softmax(voice_logits[0] / calibration.voice)
        doubt = _softmax(doubt_logits[0] / calibration.doubt + (0.0, calibration.doubt_shift))[:, 1]
        return WindowScores(voice, doubt)

    def assemble(self, windows: Sequence[Window], scores: Sequence[WindowScores]) -> list[Prediction]:
        """Return an article's predictions, sentence by sentence, from its windows and their scores."""
        predictions = []
        for window, result in zip(windows, scores, strict=True):
            labels = label_scores(result.voice, result.doubt)
            for index in window.read:
                i = index - window.first
                predictions.append(
                    _prediction(labels[i], result.voice[i], float(result.doubt[i]), window.truncated[i])
                )
        return predictions


def _prediction(
    scores: NDArray[np.float64], voice_scores: NDArray[np.float64], doubt_score: float, truncated: bool
) -> Prediction:
    best, voice = int(scores.argmax()), int(voice_scores.argmax())
    return Prediction(
        label=LABELS[best],
        score=float(scores[best]),
        scores=dict(zip(LABELS, scores.tolist(), strict=True)),
        voice=VOICES[voice],
        voice_scores=dict(zip(VOICES, voice_scores.tolist(), strict=True)),
        doubt=doubt_score >= 0.5,
        doubt_score=doubt_score,
        truncated=truncated,
    )


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = np.exp(np.asarray(logits, dtype=np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))
