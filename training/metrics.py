"""Figures of merit over the four labels: pure functions of arrays, scikit-learn's wherever it has them.

Labels may come as ``Label`` members or as their strings; score matrices have the columns of ``LABELS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
)

from serving.labels import LABELS, VOICES, Label, Voice

_NAMES = [label.value for label in LABELS]
_VOICE_NAMES = [voice.value for voice in VOICES]


@dataclass(frozen=True)
class Interval:
    """A percentile interval around a figure."""

    low: float
    high: float


@dataclass(frozen=True)
class LabelFigures:
    """One label's precision, recall and F1, and how many sentences truly carry it."""

    precision: float
    recall: float
    f1: float
    support: int


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Return the mean F1 over all four labels; a label that never occurs counts as 0.

    >>> round(macro_f1(["other", "official_claim"], ["other", "other"]), 3)
    0.167
    """
    if not len(gold):
        return 0.0
    return float(f1_score(gold, predicted, labels=_NAMES, average="macro", zero_division=0))


def voice_macro_f1(gold: Sequence[Voice], predicted: Sequence[Voice]) -> float:
    """Return the mean F1 over the five voices; a voice that never occurs counts as 0."""
    return float(f1_score(gold, predicted, labels=_VOICE_NAMES, average="macro", zero_division=0))


def doubt_f1(gold: Sequence[bool], predicted: Sequence[bool]) -> float:
    """Return the F1 of the sentences that cast doubt."""
    return float(f1_score(gold, predicted, pos_label=True, zero_division=0))


def label_figures(gold: Sequence[str], predicted: Sequence[str]) -> dict[Label, LabelFigures]:
    """Return precision, recall, F1 and support for each label, in the order of ``LABELS``."""
    columns = precision_recall_fscore_support(gold, predicted, labels=_NAMES, zero_division=0)
    rows = zip(LABELS, *columns, strict=True)
    return {label: LabelFigures(float(p), float(r), float(f), int(n)) for label, p, r, f, n in rows}


def confusion(gold: Sequence[str], predicted: Sequence[str]) -> NDArray[np.int64]:
    """Return the counts, shape (4, 4): row = right label, column = predicted label."""
    counts = np.zeros((len(LABELS), len(LABELS)), dtype=np.int64)
    for right, answer in zip(gold, predicted, strict=True):  # scikit-learn's takes a millisecond an article
        counts[_NAMES.index(right), _NAMES.index(answer)] += 1
    return counts


def f1_of(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return each label's F1 from confusion counts, shape (…, 4, 4) -> (…, 4)."""
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    both = counts.sum(axis=-1) + counts.sum(axis=-2)
    return np.asarray(2 * right / np.maximum(both, 1))


def macro_f1_of(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the macro-F1 of confusion counts, shape (…, 4, 4) -> (…); the same figure as ``macro_f1``."""
    return np.asarray(f1_of(counts).mean(axis=-1))


def macro_f1_interval(
    counts: NDArray[Any], *, draws: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Return the percentile bootstrap interval of macro-F1 over whole articles.

    ``counts`` (articles, 4, 4) holds one confusion matrix for each article: sentences of one article are not
    independent, so articles are what is drawn, with replacement, as many as there are.
    """
    return _percentiles(macro_f1_of(_drawn(np.asarray(counts), draws, seed)), confidence)


def macro_f1_gain_interval(
    counts: NDArray[Any], base: NDArray[Any], *, draws: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Return the interval of how much macro-F1 rises from ``base`` to ``counts``, both (articles, 4, 4).

    Paired: both are of the same articles in the same order, and each draw takes the same ones from both.
    """
    higher, lower = (macro_f1_of(_drawn(np.asarray(side), draws, seed)) for side in (counts, base))
    return _percentiles(higher - lower, confidence)


def accuracy_of(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of right answers from confusion counts, shape (…, 4, 4) -> (…); 0 where there are none."""
    right = np.trace(counts, axis1=-2, axis2=-1)
    return np.asarray(right / np.maximum(counts.sum(axis=(-2, -1)), 1))


def accuracy_gain_interval(
    counts: NDArray[Any], base: NDArray[Any], *, draws: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Return the interval of how much accuracy rises from ``base`` to ``counts``, paired as for macro-F1."""
    higher, lower = (accuracy_of(_drawn(np.asarray(side), draws, seed)) for side in (counts, base))
    return _percentiles(higher - lower, confidence)


def _drawn(counts: NDArray[Any], draws: int, seed: int) -> NDArray[Any]:
    """Return the confusion matrices, shape (draws, 4, 4), of as many articles drawn with replacement."""
    articles = len(counts)
    times = np.random.default_rng(seed).multinomial(articles, np.full(articles, 1 / articles), size=draws)
    return np.tensordot(times, counts, axes=1)


def _percentiles(figures: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(figures, [tail, 1 - tail])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class ReliabilityBins:
    """Predictions binned by their top score, in bins of equal width; every array has one item a bin."""

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """The expected calibration error: |accuracy - confidence| weighted by the bins' counts."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.count * gaps).sum() / max(1, self.count.sum()))


def reliability(scores: NDArray[Any], gold_index: NDArray[Any], *, bins: int = 15) -> ReliabilityBins:
    """Return the bins of the top scores, shape (n, 4), as in Naeini et al. 2015 and Guo et al. 2017.

    Bin m holds the scores in ((m - 1) / bins, m / bins]; an empty bin has confidence and accuracy 0.
    """
    scores = np.asarray(scores, dtype=np.float64)
    top, hit = scores.max(axis=1), scores.argmax(axis=1) == np.asarray(gold_index)
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, top, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    share = np.maximum(count, 1)
    confidence = np.bincount(index, weights=top, minlength=bins) / share
    accuracy = np.bincount(index, weights=hit.astype(np.float64), minlength=bins) / share
    return ReliabilityBins(count.astype(np.int64), confidence, accuracy)


def expected_calibration_error(scores: NDArray[Any], gold_index: NDArray[Any], *, bins: int = 15) -> float:
    """Return the ECE of the top scores: how far, on average, a score is from the share of right answers."""
    return reliability(scores, gold_index, bins=bins).ece


def brier(scores: NDArray[Any], gold_index: NDArray[Any]) -> float:
    """Return the multiclass Brier score: the squared distance of scores and right answers, 0 (best) to 2."""
    right = np.eye(len(LABELS))[np.asarray(gold_index, dtype=np.intp)]
    return float(((np.asarray(scores, dtype=np.float64) - right) ** 2).sum(axis=1).mean())


def average_precision(scores: NDArray[Any], gold_index: NDArray[Any]) -> dict[Label, float]:
    """Return for each label the area under its precision-recall curve; 0 for a label that never occurs."""
    areas = {}
    for index, label in enumerate(LABELS):
        right = np.asarray(gold_index) == index
        areas[label] = float(average_precision_score(right, scores[:, index])) if right.any() else 0.0
    return areas
