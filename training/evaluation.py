"""How right a model is on labelled articles, measured through the predictor that also serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.errors import SaysoError
from serving.labels import LABELS, Label
from serving.predictor import Article, Prediction
from training import metrics
from training.corpus import LabelledArticle, Sentence

GROUP_KEYS = ("register", "beat", "source", "role")
"""What of an article's ``meta`` macro-F1 is given for apart."""
MIN_GROUP_SENTENCES = 100
# Sentences handed to the predictor at once, so that a progress bar moves.
_PORTION = 1024

Progress = Callable[[int], None]


class Reader(Protocol):
    """Whatever labels articles as ``serving.predictor.Predictor`` does."""

    def predict(self, articles: Sequence[Article]) -> list[list[Prediction]]:
        """Return a prediction for every sentence of every article."""


@dataclass(frozen=True)
class Group:
    """Figures of the articles that share a register, a beat, …

    ``macro_f1`` is the mean over the ``labels`` that occur in the group: a small one seldom has all four.
    """

    articles: int
    sentences: int
    labels: int
    macro_f1: float


@dataclass(frozen=True)
class LabelSets:
    """How often the ``labels_90`` hold the right label, by sentence, and how many labels they hold on average."""

    coverage: float
    size: float


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model on one data set, read in context or each sentence alone.

    ``voice_macro_f1`` and ``doubt_f1`` are None where no row has a voice. ``groups`` goes from a key of
    ``meta`` and its value to the group. The arrays are what plots and paired comparisons need: ``confusion``
    (4, 4), ``article_confusion`` (articles, 4, 4) and ``context_confusion``, the same of the sentences that
    need context, have a row for the right and a column for the predicted label; ``scores`` (n, 4) and
    ``gold_index`` (n,) have a row for each sentence, in the articles' order.
    """

    alone: bool
    articles: int
    sentences: int
    truncated: int
    sentences_per_second: float
    macro_f1: float
    macro_f1_interval: metrics.Interval
    labels: Mapping[Label, metrics.LabelFigures]
    average_precision: Mapping[Label, float]
    voice_macro_f1: float | None
    doubt_f1: float | None
    ece: float
    brier: float
    sets_90: LabelSets
    groups: Mapping[str, Mapping[str, Group]]
    confusion: NDArray[np.int64]
    article_confusion: NDArray[np.int64]
    context_confusion: NDArray[np.int64]
    scores: NDArray[np.float64]
    gold_index: NDArray[np.int64]


@dataclass(frozen=True)
class Gain:
    """By how much macro-F1 is higher, with the paired interval over articles."""

    macro_f1: float
    interval: metrics.Interval


@dataclass(frozen=True)
class ContextGain:
    """The accuracy on the sentences that need context: with it, without, and what it adds, paired over articles."""

    sentences: int
    in_context: float
    alone: float
    gain: float
    interval: metrics.Interval


@dataclass(frozen=True)
class Fidelity:
    """How near int8 is to fp32: the share of equal labels, and the macro-F1 that fp32 has."""

    agreement: float
    exact_macro_f1: float


def evaluate(
    predictor: Reader,
    articles: Sequence[LabelledArticle],
    *,
    alone: bool = False,
    labels_90: float = 0.0,
    progress: Progress | None = None,
) -> Evaluation:
    """Return the predictor's figures on labelled articles; ``alone`` shows it every sentence by itself.

    ``labels_90`` is the score from which on a label is in the set of ``labels_90``. ``progress`` is called with the
    number of sentences read since the last call.
    """
    gold = [sentence for article in articles for sentence in article.sentences]
    if not gold:
        raise SaysoError("no labelled sentence to evaluate on; give a file or a split that holds some")
    started = time.perf_counter()
    predicted = read(predictor, articles, alone=alone, progress=progress)
    seconds = time.perf_counter() - started
    predictions = list(chain.from_iterable(predicted))
    answered = [[p.label for p in row] for row in predicted]
    by_article = article_confusion(articles, answered)
    needy = [[s.needs_context for s in article.sentences] for article in articles]
    labels, answers = [s.label for s in gold], [p.label for p in predictions]
    scores = np.array([[p.scores[label] for label in LABELS] for p in predictions])
    gold_index = np.array([LABELS.index(label) for label in labels])
    return Evaluation(
        alone=alone,
        articles=len(articles),
        sentences=len(gold),
        truncated=sum(p.truncated for p in predictions),
        sentences_per_second=len(gold) / max(seconds, 1e-9),
        macro_f1=metrics.macro_f1(labels, answers),
        macro_f1_interval=metrics.macro_f1_interval(by_article),
        labels=metrics.label_figures(labels, answers),
        average_precision=metrics.average_precision(scores, gold_index),
        voice_macro_f1=_voice_macro_f1(gold, predictions),
        doubt_f1=_doubt_f1(gold, predictions),
        ece=metrics.expected_calibration_error(scores, gold_index),
        brier=metrics.brier(scores, gold_index),
        sets_90=_label_sets(scores, gold_index, labels_90),
        groups=_groups(articles, by_article),
        confusion=by_article.sum(axis=0),
        article_confusion=by_article,
        context_confusion=article_confusion(articles, answered, needy),
        scores=scores,
        gold_index=gold_index,
    )


def gain(evaluation: Evaluation, base: Evaluation) -> Gain:
    """Return how much better ``evaluation`` is than ``base``, both of the same articles in the same order."""
    if evaluation.article_confusion.shape != base.article_confusion.shape or (
        evaluation.gold_index.tolist() != base.gold_index.tolist()
    ):
        raise SaysoError("evaluations of different data cannot be compared; evaluate both on the same")
    interval = metrics.macro_f1_gain_interval(evaluation.article_confusion, base.article_confusion)
    return Gain(evaluation.macro_f1 - base.macro_f1, interval)


def context_gain(in_context: Evaluation, alone: Evaluation) -> ContextGain | None:
    """Return what context adds where it is needed; None where no sentence is marked ``needs_context``."""
    with_it, without = in_context.context_confusion, alone.context_confusion
    if not with_it.any():
        return None
    higher, lower = (float(metrics.accuracy_of(counts.sum(axis=0))) for counts in (with_it, without))
    interval = metrics.accuracy_gain_interval(with_it, without)
    return ContextGain(int(with_it.sum()), higher, lower, higher - lower, interval)


def fidelity(evaluation: Evaluation, exact: Evaluation) -> Fidelity:
    """Return how near an evaluation is to the ``exact`` one of the same articles in the same order."""
    same = evaluation.scores.argmax(axis=1) == exact.scores.argmax(axis=1)
    return Fidelity(float(same.mean()), exact.macro_f1)


def read(
    predictor: Reader,
    articles: Sequence[LabelledArticle],
    *,
    alone: bool = False,
    progress: Progress | None = None,
) -> list[list[Prediction]]:
    """Return a prediction for every sentence of every article, each read in context or ``alone``."""
    units = list(_units(articles, alone=alone))
    predictions: list[list[Prediction]] = []
    for portion in _portions(units):
        predictions += predictor.predict(portion)
        if progress is not None:
            progress(sum(len(unit.sentences) for unit in portion))
    if not alone:
        return predictions
    lone = iter(predictions)
    return [[next(lone)[0] for _ in article.sentences] for article in articles]


def article_confusion(
    articles: Sequence[LabelledArticle],
    predicted: Sequence[Sequence[Label]],
    counted: Sequence[Sequence[bool]] | None = None,
) -> NDArray[np.int64]:
    """Return each article's confusion matrix, (articles, 4, 4): row = right, column = predicted label.

    ``counted`` says of every sentence whether it counts; all do without it.
    """
    matrices = []
    for index, (article, answers) in enumerate(zip(articles, predicted, strict=True)):
        counts = counted[index] if counted else [True] * len(answers)
        right = compress((s.label for s in article.sentences), counts)
        matrices.append(metrics.confusion(list(right), list(compress(answers, counts))))
    return np.stack(matrices)


def _units(articles: Sequence[LabelledArticle], *, alone: bool) -> Iterator[Article]:
    for article in articles:
        if alone:
            yield from (Article([sentence.text]) for sentence in article.sentences)
        else:
            yield article.unlabelled()


def _portions(units: Sequence[Article]) -> Iterator[list[Article]]:
    portion: list[Article] = []
    size = 0
    for unit in units:
        portion.append(unit)
        size += len(unit.sentences)
        if size >= _PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _label_sets(scores: NDArray[np.float64], gold_index: NDArray[np.int64], threshold: float) -> LabelSets:
    held = (scores >= threshold) | (scores == scores.max(axis=1, keepdims=True))
    return LabelSets(float(held[np.arange(len(held)), gold_index].mean()), float(held.sum(axis=1).mean()))


def _voice_macro_f1(gold: Sequence[Sentence], predictions: Sequence[Prediction]) -> float | None:
    known = [(s.voice, p.voice) for s, p in zip(gold, predictions, strict=True) if s.voice is not None]
    if not known:
        return None
    return metrics.voice_macro_f1([right for right, _ in known], [answer for _, answer in known])


def _doubt_f1(gold: Sequence[Sentence], predictions: Sequence[Prediction]) -> float | None:
    known = [(s.doubt, p.doubt) for s, p in zip(gold, predictions, strict=True) if s.doubt is not None]
    if not known:
        return None
    return metrics.doubt_f1([right for right, _ in known], [answer for _, answer in known])


def _groups(
    articles: Sequence[LabelledArticle], by_article: NDArray[np.int64]
) -> dict[str, dict[str, Group]]:
    """Return the groups of at least ``MIN_GROUP_SENTENCES``, largest first, by key and value."""
    groups: dict[str, dict[str, Group]] = {}
    for key in GROUP_KEYS:
        values = [article.meta.get(key) for article in articles]
        found = [(v, _group(by_article[[w == v for w in values]])) for v in sorted({v for v in values if v})]
        large = [(value, group) for value, group in found if group.sentences >= MIN_GROUP_SENTENCES]
        if large:
            groups[key] = dict(sorted(large, key=lambda item: -item[1].sentences))
    return groups


def _group(by_article: NDArray[np.int64]) -> Group:
    counts = by_article.sum(axis=0)
    present = counts.sum(axis=1) > 0
    macro_f1 = float(metrics.f1_of(counts)[present].mean()) if present.any() else 0.0
    return Group(len(by_article), int(counts.sum()), int(present.sum()), macro_f1)
