"""Artefact probes: how far labels can be guessed without reading, and how unlike real news the written corpus is.

A probe is a classifier that sees only a sliver of each sentence (Gururangan et al. 2018, "Annotation Artifacts"). What
it reaches above the commonest label is given away by that sliver, and no merit of a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from training.baselines import Majority, TfidfLogistic
from training.corpus import LabelledArticle
from training.evaluation import article_confusion
from training.metrics import Interval, macro_f1_interval, macro_f1_of

_WORD = re.compile(r"\w+(?:['’]\w+)?")
_NAME = re.compile(r"(?<=[\w,;:] )[A-Z]\w+")  # a capital inside a sentence
_QUOTE = re.compile(r"[\"“”]")
_CUES = """
    accused acknowledged added admitted alleged announced argued asked asserted blamed called cautioned cited
    claimed commented concluded condemned confirmed contended declared denied described dismissed disputed
    doubted estimated expected explained found insisted maintained noted pointed predicted promised questioned
    recalled rejected replied reported revealed ruled said says showed stated stressed suggested told tweeted
    urged vowed warned wrote according
"""
_CUE_VERBS = frozenset(_CUES.split())
_MASK, _MARK = "xx", " qq "  # stand for a content word and for a quotation mark


def _position(article: LabelledArticle) -> Iterator[str]:
    count = len(article.sentences)
    for i in range(count):
        yield f"from_start_{min(i, 20)} from_end_{min(count - 1 - i, 20)}"


def _cue_verbs(text: str) -> str:
    return " ".join(word for word in _WORD.findall(text.lower()) if word in _CUE_VERBS)


def _names(text: str) -> str:
    return " ".join(_NAME.findall(text))


def _masked(text: str) -> str:
    kept = _WORD.sub(lambda m: m[0] if m[0].lower() in ENGLISH_STOP_WORDS else _MASK, text)
    return _QUOTE.sub(_MARK, kept)


Sliver = Callable[[LabelledArticle], Sequence[str]]
SLIVERS: dict[str, Sliver] = {
    "position in the article": lambda article: list(_position(article)),
    "cue verbs": lambda article: [_cue_verbs(s.text) for s in article.sentences],
    "names": lambda article: [_names(s.text) for s in article.sentences],
    "content words masked": lambda article: [_masked(s.text) for s in article.sentences],
    "whole sentences": lambda article: [s.text for s in article.sentences],
}


def probe(
    train: Sequence[LabelledArticle], test: Sequence[LabelledArticle]
) -> dict[str, tuple[float, Interval]]:
    """Return macro-F1 on ``test``, with its interval over articles, for every sliver, and for the commonest label."""
    found = {"nothing (the commonest label)": _score(Majority(), train, test)}
    for name, sliver in SLIVERS.items():
        seen, unseen = ([_reduced(article, sliver) for article in part] for part in (train, test))
        found[name] = _score(TfidfLogistic(), seen, unseen)
    return found


def tell_apart(
    written: Sequence[LabelledArticle], real: Sequence[LabelledArticle], *, folds: int = 5
) -> float:
    """Return the cross-validated AUC of a classifier that tells written articles from real ones; 0.5 is chance.

    As many of each, and of each article as many sentences as the shortest tenth has, so that neither length tells.
    """
    count = min(len(written), len(real))
    drawn = np.random.default_rng(0)
    articles = [part[i] for part in (written, real) for i in drawn.permutation(len(part))[:count]]
    length = max(1, int(np.quantile([len(a.sentences) for a in articles], 0.1)))
    texts = [" ".join(s.text for s in article.sentences[:length]) for article in articles]
    is_real = np.repeat([0, 1], count)
    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=100)
    )
    cut = StratifiedKFold(folds, shuffle=True, random_state=0)
    scores = cross_val_predict(classifier, texts, is_real, cv=cut, method="predict_proba")[:, 1]
    return float(roc_auc_score(is_real, scores))


def _reduced(article: LabelledArticle, sliver: Sliver) -> LabelledArticle:
    pairs = zip(article.sentences, sliver(article), strict=True)
    return replace(article, sentences=tuple(replace(s, text=text or _MASK) for s, text in pairs))


def _score(
    classifier: Majority | TfidfLogistic, train: Sequence[LabelledArticle], test: Sequence[LabelledArticle]
) -> tuple[float, Interval]:
    classifier.fit(train, [])
    counts = article_confusion(test, classifier.predict(test))
    return float(macro_f1_of(counts.sum(axis=0))), macro_f1_interval(counts)
