"""Temperatures for the two heads, fitted on validation so that label scores can be read as probabilities.

Temperature scaling as in Guo et al. 2017, "On Calibration of Modern Neural Networks", with one temperature
for each head and the loss on the label scores that the guide's rule derives from both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from serving.artifact import Temperatures
from serving.errors import SaysoError
from serving.labels import label_scores

__all__ = ["Temperatures", "calibrated_scores", "fit_temperatures"]

# Beyond these a temperature no longer calibrates: it makes scores all one or all equal.
_MIN, _MAX = 0.1, 10.0
# The derived loss is not convex, so the search begins at several (voice, doubt) temperatures.
_STARTS = ((1.0, 1.0), (2.0, 2.0), (0.5, 0.5), (2.0, 0.5), (0.5, 2.0))


def fit_temperatures(
    voice_logits: NDArray[Any], doubt_logits: NDArray[Any], label_index: NDArray[Any]
) -> Temperatures:
    """Return the temperatures under which the right labels are likeliest, never worse than none at all.

    Shapes: ``voice_logits`` (n, 5), ``doubt_logits`` (n, 2), its second column for doubt, and ``label_index``
    (n,) into ``LABELS``. The result depends on nothing but the arguments.
    """
    voice, doubt = np.asarray(voice_logits, dtype=np.float64), np.asarray(doubt_logits, dtype=np.float64)
    gold = np.asarray(label_index, dtype=np.intp)
    if not len(gold):
        raise SaysoError(
            "no labelled sentence to fit temperatures on; give a validation split that holds some"
        )

    def loss(log_temperatures: NDArray[np.float64]) -> float:
        return _label_nll(calibrated_scores(voice, doubt, Temperatures(*np.exp(log_temperatures))), gold)

    bounds = [(np.log(_MIN), np.log(_MAX))] * 2
    found = [minimize(loss, np.log(start), method="L-BFGS-B", bounds=bounds).x for start in _STARTS]
    best = min([np.zeros(2), *found], key=loss)
    return Temperatures(*(float(t) for t in np.exp(best)))


def calibrated_scores(
    voice_logits: NDArray[Any], doubt_logits: NDArray[Any], temperatures: Temperatures
) -> NDArray[np.float64]:
    """Return the label scores, shape (n, 4), of logits (n, 5) and (n, 2) under the temperatures."""
    voice = softmax(np.asarray(voice_logits, dtype=np.float64) / temperatures.voice, axis=1)
    doubt = softmax(np.asarray(doubt_logits, dtype=np.float64) / temperatures.doubt, axis=1)[:, 1]
    return label_scores(voice, doubt)


def _label_nll(scores: NDArray[np.float64], gold: NDArray[np.intp]) -> float:
    """Return the mean negative log-likelihood; a score of zero costs much but not infinitely much."""
    right = scores[np.arange(len(gold)), gold]
    return float(-np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean())
