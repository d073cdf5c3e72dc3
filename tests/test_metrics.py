"""Figures of merit agree with scikit-learn, with cases counted by hand, and with what they promise."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, f1_score

from serving.labels import LABELS, Label, Voice
from training import metrics

CLAIM, ASSESSMENT, SKEPTICISM, OTHER = LABELS
label_pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=60)


def random_scores(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores that are the very probabilities their labels are drawn from."""
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.full(4, 0.5), n)
    return scores, (scores.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=3)


def one_hot_articles(sentences: int, articles: int, accuracy: float, seed: int) -> NDArray[np.int64]:
    """Confusion matrices of articles whose sentences are right with a probability, else the next label."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((articles, 4, 4), dtype=np.int64)
    gold = rng.integers(0, 4, (articles, sentences))
    predicted = np.where(rng.random(gold.shape) < accuracy, gold, (gold + 1) % 4)
    for article in range(articles):
        np.add.at(counts[article], (gold[article], predicted[article]), 1)
    return counts


def test_macro_f1_by_hand() -> None:
    gold = [CLAIM, CLAIM, OTHER, SKEPTICISM]
    predicted = [CLAIM, OTHER, OTHER, SKEPTICISM]
    # F1: claim 2/3, assessment 0 (never occurs), skepticism 1, other 2/3.
    assert metrics.macro_f1(gold, predicted) == pytest.approx((2 / 3 + 0 + 1 + 2 / 3) / 4)


def test_macro_f1_takes_strings_as_well_as_labels() -> None:
    assert metrics.macro_f1(["other", "official_claim"], ["other", "other"]) == pytest.approx(1 / 6)


def test_macro_f1_of_nothing_is_zero() -> None:
    assert metrics.macro_f1([], []) == 0
    assert metrics.confusion([], []).sum() == 0


@settings(max_examples=25, deadline=None)
@given(label_pairs)
def test_macro_f1_is_scikit_learns_and_that_of_the_counts(pairs: list[tuple[Label, Label]]) -> None:
    gold, predicted = [g for g, _ in pairs], [p for _, p in pairs]
    expected = f1_score(gold, predicted, labels=list(LABELS), average="macro", zero_division=0)
    counts = metrics.confusion(gold, predicted)
    assert metrics.macro_f1(gold, predicted) == pytest.approx(expected)
    assert metrics.macro_f1_of(counts) == pytest.approx(expected)
    assert metrics.f1_of(counts) == pytest.approx(
        [f.f1 for f in metrics.label_figures(gold, predicted).values()]
    )


@settings(max_examples=25, deadline=None)
@given(label_pairs, st.randoms(use_true_random=False))
def test_the_order_of_sentences_changes_nothing(pairs: list[tuple[Label, Label]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = ([list(side) for side in zip(*some, strict=True)] for some in (pairs, shuffled))
    assert metrics.label_figures(*one) == metrics.label_figures(*other)
    assert (metrics.confusion(*one) == metrics.confusion(*other)).all()


def test_calibration_figures_do_not_depend_on_the_order() -> None:
    scores, gold = random_scores(300, seed=1)
    order = np.random.default_rng(2).permutation(300)
    for figure in (metrics.expected_calibration_error, metrics.brier):
        assert figure(scores[order], gold[order]) == pytest.approx(figure(scores, gold))


def test_confusion_has_right_labels_as_rows() -> None:
    counts = metrics.confusion([CLAIM, CLAIM, OTHER], [OTHER, OTHER, OTHER])
    assert counts[0].tolist() == [0, 0, 0, 2]
    assert counts[3].tolist() == [0, 0, 0, 1]


def test_label_figures_by_hand() -> None:
    figures = metrics.label_figures([CLAIM, CLAIM, OTHER, OTHER], [CLAIM, OTHER, OTHER, OTHER])
    assert astuple(figures[CLAIM]) == pytest.approx((1, 1 / 2, 2 / 3, 2))
    assert astuple(figures[OTHER]) == pytest.approx((2 / 3, 1, 4 / 5, 2))
    assert figures[SKEPTICISM] == metrics.LabelFigures(0, 0, 0, 0)
    assert list(figures) == list(LABELS)


def test_voice_and_doubt_f1_by_hand() -> None:
    voices = [Voice.PARTY, Voice.OUTSIDE, Voice.EXPERT, Voice.PRIVATE]
    assert metrics.voice_macro_f1(voices, voices) == pytest.approx(4 / 5)  # none never occurs
    assert metrics.doubt_f1([True, True, False], [True, False, False]) == pytest.approx(2 / 3)
    assert metrics.doubt_f1([False], [False]) == 0


def test_interval_covers_the_true_figure_about_as_often_as_it_says() -> None:
    accuracy = 0.7  # with as many of each label, macro-F1 is the accuracy
    covered = 0
    for seed in range(100):
        interval = metrics.macro_f1_interval(one_hot_articles(10, 60, accuracy, seed), draws=400)
        covered += interval.low <= accuracy <= interval.high
    assert 88 <= covered <= 100


def test_interval_holds_the_figure_and_is_the_same_twice() -> None:
    counts = one_hot_articles(10, 40, 0.7, seed=1)
    interval = metrics.macro_f1_interval(counts)
    assert interval.low < metrics.macro_f1_of(counts.sum(axis=0)) < interval.high
    assert interval == metrics.macro_f1_interval(counts)


def test_interval_is_wider_where_sentences_of_an_article_go_wrong_together() -> None:
    rng = np.random.default_rng(1)
    together = np.zeros((40, 4, 4), dtype=np.int64)
    for article in together:
        gold = rng.integers(0, 4, 10)
        np.add.at(article, (gold, (gold + (rng.random() > 0.7)) % 4), 1)
    apart = one_hot_articles(10, 40, 0.7, seed=1)
    width = [i.high - i.low for i in map(metrics.macro_f1_interval, (apart, together))]
    assert width[1] > 1.5 * width[0]


def test_interval_of_one_article_is_a_point() -> None:
    counts = one_hot_articles(20, 1, 0.7, seed=1)
    interval = metrics.macro_f1_interval(counts)
    assert interval.low == interval.high == pytest.approx(metrics.macro_f1_of(counts[0]))


def test_gain_over_itself_is_nothing_and_paired_draws_narrow_it() -> None:
    base = one_hot_articles(10, 40, 0.6, seed=1)
    assert metrics.macro_f1_gain_interval(base, base) == metrics.Interval(0, 0)
    better = one_hot_articles(10, 40, 0.9, seed=1)
    gain = metrics.macro_f1_gain_interval(better, base)
    assert 0.15 < gain.low < 0.3 < gain.high < 0.45


def test_ece_by_hand() -> None:
    scores = np.array([[0.9, 0.1, 0, 0], [0.9, 0.1, 0, 0], [0.5, 0.3, 0.2, 0], [0.5, 0.3, 0.2, 0]])
    gold = np.array([0, 1, 0, 0])
    # Two bins: |0.5 - 0.9| over half of the sentences, |1 - 0.5| over the other half.
    assert metrics.expected_calibration_error(scores, gold) == pytest.approx(0.45)


def test_ece_counts_a_score_on_an_edge_in_the_lower_bin_and_a_score_of_one_in_the_last() -> None:
    scores = np.array([[1.0, 0, 0, 0], [0.6, 0.4, 0, 0]])
    bins = metrics.reliability(scores, np.array([0, 0]), bins=10)
    assert bins.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]


def test_ece_of_honest_scores_is_small_and_of_boastful_ones_large() -> None:
    scores, gold = random_scores(50_000, seed=3)
    assert metrics.expected_calibration_error(scores, gold) < 0.01
    boastful = scores**4 / (scores**4).sum(axis=1, keepdims=True)
    assert metrics.expected_calibration_error(boastful, gold) > 0.1


def test_brier_by_hand_and_as_scikit_learn_has_it() -> None:
    assert metrics.brier(np.array([[1.0, 0, 0, 0]]), np.array([0])) == 0
    assert metrics.brier(np.array([[1.0, 0, 0, 0]]), np.array([1])) == 2
    assert metrics.brier(np.full((1, 4), 0.25), np.array([2])) == pytest.approx(0.75)
    scores, gold = random_scores(200, seed=4)
    expected = brier_score_loss(gold, scores, labels=[0, 1, 2, 3], scale_by_half=False)
    assert metrics.brier(scores, gold) == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 50))
def test_calibration_figures_stay_within_their_bounds(seed: int, n: int) -> None:
    scores, gold = random_scores(n, seed)
    assert 0 <= metrics.expected_calibration_error(scores, gold) <= 1
    assert 0 <= metrics.brier(scores, gold) <= 2
    assert metrics.reliability(scores, gold).count.sum() == n


def test_average_precision_is_one_for_a_perfect_ranking_and_zero_for_an_absent_label() -> None:
    scores = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.5, 0.1, 0.2], [0.1, 0.2, 0.1, 0.6]])
    found = metrics.average_precision(scores, np.array([0, 1, 3]))
    assert found == {CLAIM: 1.0, ASSESSMENT: 1.0, SKEPTICISM: 0.0, OTHER: 1.0}
