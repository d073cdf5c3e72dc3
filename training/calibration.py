"""The calibration of the two heads, fitted on validation so that label scores can be read as probabilities.

Temperature scaling as in Guo et al. 2017, "On Calibration of Modern Neural Networks", with one temperature
for each head and the loss on the label scores that the guide's rule derives from both. Then the doubt logits are
shifted until skepticism is answered as often as it is there: it is rare, and the likeliest answer to a rare label
is too often another one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from serving.artifact import Calibration
from serving.errors import SaysoError
from serving.labels import LABELS, Label, label_scores

__all__ = ["Calibration", "calibrated_scores", "fit_calibration", "label_set_threshold"]

# Beyond these a temperature no longer calibrates: it makes scores all one or all equal.
_MIN, _MAX = 0.1, 10.0
# The derived loss is not convex, so the search begins at several (voice, doubt) temperatures.
_STARTS = ((1.0, 1.0), (2.0, 2.0), (0.5, 0.5), (2.0, 0.5), (0.5, 2.0))
# Nearest to none first. More than this would shift what the heads have learnt, not how they are read.
_SHIFTS = np.array(sorted(np.linspace(-1.5, 1.5, 61), key=abs))
_SKEPTICISM = LABELS.index(Label.EXPERT_SKEPTICISM)


def fit_calibration(
    voice_logits: NDArray[Any],
    doubt_logits: NDArray[Any],
    label_index: NDArray[Any],
    article: NDArray[Any] | None = None,
) -> Calibration:
    """Return the temperatures under which the right labels are likeliest, the shift of doubt, and the label sets.

    Shapes: ``voice_logits`` (n, 5), ``doubt_logits`` (n, 2), its second column for doubt, ``label_index`` (n,) into
    ``LABELS``, and ``article`` (n,) any number by article; without it each sentence is an article of its own. The
    result depends on nothing but the arguments; the temperatures are never worse than none.
    """
    voice, doubt = np.asarray(voice_logits, dtype=np.float64), np.asarray(doubt_logits, dtype=np.float64)
    gold = np.asarray(label_index, dtype=np.intp)
    if not len(gold):
        raise SaysoError("no labelled sentence to calibrate on; give a validation split that holds some")

    def loss(log_temperatures: NDArray[np.float64]) -> float:
        return _label_nll(calibrated_scores(voice, doubt, Calibration(*np.exp(log_temperatures))), gold)

    bounds = [(np.log(_MIN), np.log(_MAX))] * 2
    found = [minimize(loss, np.log(start), method="L-BFGS-B", bounds=bounds).x for start in _STARTS]
    best = min([np.zeros(2), *found], key=loss)
    temperatures = Calibration(*(float(t) for t in np.exp(best)))
    shifted = replace(temperatures, doubt_shift=_matching_shift(voice, doubt, gold, temperatures))
    scores = calibrated_scores(voice, doubt, shifted)
    article = np.arange(len(gold)) if article is None else np.asarray(article)
    return replace(shifted, labels_90=label_set_threshold(scores[np.arange(len(gold)), gold], article))


def _matching_shift(
    voice: NDArray[np.float64], doubt: NDArray[np.float64], gold: NDArray[np.intp], temperatures: Calibration
) -> float:
    """Return the shift under which the number of answers "skepticism" is nearest to the right one.

    It is nearly the shift of the highest macro-F1, and steadier: that one follows single sentences.
    """
    wanted = int((gold == _SKEPTICISM).sum())

    def missed(shift: float) -> int:
        scores = calibrated_scores(voice, doubt, replace(temperatures, doubt_shift=shift))
        return abs(int((scores.argmax(axis=1) == _SKEPTICISM).sum()) - wanted)

    return float(min(_SHIFTS, key=missed)) if wanted else 0.0


def label_set_threshold(right_scores: NDArray[Any], article: NDArray[Any], *, coverage: float = 0.9) -> float:
    """Return the score from which on labels make sets that hold the right one with the coverage.

    Split conformal prediction for data in groups (Lee, Barber and Willett 2023, HCP): sentences of an article are not
    exchangeable, articles are, so every article weighs the same, and one more of unknown scores is reckoned with.
    ``right_scores`` (n,) are the right labels' scores. Returns 0, for the set of all labels, where too few articles
    are known for the coverage.
    """
    _, index, sizes = np.unique(article, return_inverse=True, return_counts=True)
    missed = 1 - coverage * (len(sizes) + 1) / len(sizes)
    if missed < 0:
        return 0.0
    return float(np.quantile(right_scores, missed, weights=1 / sizes[index], method="inverted_cdf"))


def calibrated_scores(
    voice_logits: NDArray[Any], doubt_logits: NDArray[Any], calibration: Calibration
) -> NDArray[np.float64]:
    """Return the label scores, shape (n, 4), of logits (n, 5) and (n, 2) under the calibration."""
    voice = np.asarray(voice_logits, dtype=np.float64) / calibration.voice
    doubt = np.asarray(doubt_logits, dtype=np.float64) / calibration.doubt + [0.0, calibration.doubt_shift]
    return label_scores(softmax(voice, axis=1), softmax(doubt, axis=1)[:, 1])


def _label_nll(scores: NDArray[np.float64], gold: NDArray[np.intp]) -> float:
    """Return the mean negative log-likelihood; a score of zero costs much but not infinitely much."""
    right = scores[np.arange(len(gold)), gold]
    return float(-np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean())
