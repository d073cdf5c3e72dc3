"""Temperatures bring miscalibrated scores back, and never make them worse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from serving.errors import SaysoError
from serving.labels import LABELS, VOICES, Label, label_of, label_scores
from training.calibration import Calibration, calibrated_scores, fit_calibration, label_set_threshold
from training.metrics import expected_calibration_error

Logits = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]


def honest_logits(n: int, seed: int) -> Logits:
    """Logits whose label scores are the very probabilities that the labels are drawn from."""
    rng = np.random.default_rng(seed)
    voice, doubt = rng.normal(0, 2, (n, 5)), rng.normal(0, 1.5, (n, 2))
    scores = label_scores(softmax(voice, axis=1), softmax(doubt, axis=1)[:, 1])
    labels = (scores.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=3)
    return voice, doubt, labels


def nll(logits: Logits, calibration: Calibration) -> float:
    voice, doubt, gold = logits
    return float(-np.log(calibrated_scores(voice, doubt, calibration)[np.arange(len(gold)), gold]).mean())


@pytest.mark.parametrize(("voice_factor", "doubt_factor"), [(1, 1), (3, 2), (0.5, 3), (2.5, 0.4)])
def test_temperatures_undo_a_known_miscalibration(voice_factor: float, doubt_factor: float) -> None:
    voice, doubt, gold = honest_logits(8_000, seed=1)
    found = fit_calibration(voice * voice_factor, doubt * doubt_factor, gold)
    assert found.voice == pytest.approx(voice_factor, rel=0.1)
    assert found.doubt == pytest.approx(doubt_factor, rel=0.2)


def test_calibration_lowers_the_error_of_overconfident_scores() -> None:
    voice, doubt, gold = honest_logits(5_000, seed=2)
    over = (voice * 3, doubt * 3, gold)
    before = expected_calibration_error(calibrated_scores(*over[:2], Calibration()), gold)
    after = expected_calibration_error(calibrated_scores(*over[:2], fit_calibration(*over)), gold)
    assert before > 0.1
    assert after < 0.03


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0.01, 50))
def test_calibration_is_never_worse_than_none(seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.normal(0, scale, (n, 5)), rng.normal(0, scale, (n, 2)), rng.integers(0, 4, n))
    found = fit_calibration(*logits)
    assert 0.1 <= found.voice <= 10.001
    assert 0.1 <= found.doubt <= 10.001
    with np.errstate(divide="ignore"):
        assert nll(logits, replace(found, doubt_shift=0)) <= nll(logits, Calibration()) + 1e-12


@pytest.mark.parametrize("bias", [-1.0, 0.0, 0.8])
def test_skepticism_is_answered_as_often_as_it_is_there(bias: float) -> None:
    voice, doubt, gold = honest_logits(6_000, seed=5)
    doubt = doubt + np.array([0, bias])  # what a head does that saw another share of doubt in training
    found = fit_calibration(voice, doubt, gold)
    skeptical = LABELS.index(Label.EXPERT_SKEPTICISM)
    answered = (calibrated_scores(voice, doubt, found).argmax(axis=1) == skeptical).sum()
    assert answered == pytest.approx((gold == skeptical).sum(), rel=0.05)


def test_without_skepticism_on_validation_doubt_is_not_shifted() -> None:
    voice, doubt, gold = honest_logits(500, seed=6)
    none = np.where(gold == LABELS.index(Label.EXPERT_SKEPTICISM), 0, gold)
    assert fit_calibration(voice, doubt, none).doubt_shift == 0


def test_calibration_gives_the_same_answer_twice() -> None:
    logits = honest_logits(500, seed=3)
    assert fit_calibration(*logits) == fit_calibration(*logits)


def test_a_cold_voice_is_sure_of_its_likeliest_and_a_hot_one_of_none() -> None:
    voice, doubt, _ = honest_logits(200, seed=4)
    sure = np.tile([50.0, 0.0], (len(doubt), 1))
    cold, hot = (calibrated_scores(voice, sure, Calibration(voice=t)) for t in (0.001, 10))
    assert hot.sum(axis=1) == pytest.approx(1)
    likeliest = voice.argmax(axis=1)
    assert [LABELS[i] for i in cold.argmax(axis=1)] == [label_of(VOICES[v], doubt=False) for v in likeliest]
    assert cold.max(axis=1).mean() > 0.99
    assert hot.max(axis=1).mean() < 0.6


def test_no_validation_sentence_is_an_error_that_says_so() -> None:
    with pytest.raises(SaysoError, match="no labelled sentence to calibrate on"):
        fit_calibration(np.empty((0, 5)), np.empty((0, 2)), np.empty(0))


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_label_sets_hold_the_right_label_as_often_as_promised_in_articles_not_seen(coverage: float) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, 900)
    article = np.repeat(np.arange(900), sizes)
    # What an article is like sways all its sentences: they are not independent.
    right = 1 / (1 + np.exp(-(rng.normal(1, 1, 900)[article] + rng.normal(0, 1, len(article)))))
    known = article < 600
    threshold = label_set_threshold(right[known], article[known], coverage=coverage)
    covered = [(right[article == a] >= threshold).mean() for a in range(600, 900)]
    assert np.mean(covered) == pytest.approx(coverage, abs=0.04)


def test_too_few_articles_to_promise_anything_leave_every_label_in() -> None:
    assert label_set_threshold(np.full(50, 0.9), np.repeat(np.arange(5), 10)) == 0


def test_a_long_article_sways_the_label_sets_no_more_than_a_short_one() -> None:
    article = np.repeat(np.arange(20), [1000, *[10] * 19])
    right = np.where(article == 0, 0.01, 0.8)
    assert label_set_threshold(right, article, coverage=0.9) == pytest.approx(0.8)
