"""The articles that a recipe trains on, chooses by, and is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from random import Random

from training.config import Config
from training.corpus import LabelledArticle, read_articles
from training.splits import SHARES, read_written, split_off
from training.teacher import Teacher, read_teacher

# Not the recipe's seed: runs with other seeds choose by the same articles, and a run that continues another's weights
# never sees as validation what that one was trained on.
_SPLIT_SEED = 13


@dataclass(frozen=True)
class Data:
    """What a recipe trains on, chooses by, and is tested on; a teacher's answers on some of it."""

    train: list[LabelledArticle]
    validation: list[LabelledArticle]
    test: list[LabelledArticle]
    teacher: Teacher = field(default_factory=Teacher)


def sentence_count(articles: Sequence[LabelledArticle]) -> int:
    """Return the number of sentences."""
    return sum(len(article.sentences) for article in articles)


def read_set(name: str) -> list[LabelledArticle]:
    """Return a split of the written corpus (train, validation, test), or the articles of a labelled file."""
    if name in SHARES:
        articles: list[LabelledArticle] = getattr(read_written(), name)
        return articles
    return read_articles([Path(name)])


def read_data(config: Config) -> Data:
    """Return the data of a recipe: the written splits, and the extra files, a part of each kept for validation.

    Articles that only the teacher has labelled are trained on, too.
    """
    written = read_written(Path(config.data))
    train, validation = list(written.train), list(written.validation)
    if config.validation_data:
        validation += read_articles([Path(path) for path in config.validation_data])
    for extra in _extra_files(config):
        if config.extra_validation_share:
            extra, held = split_off(extra, share=config.extra_validation_share, seed=_SPLIT_SEED)
            validation += held
        train += extra
    teacher = read_teacher([Path(path) for path in config.teacher_scores])
    train += teacher.unlabelled({a.id for a in chain(train, validation, written.test)})
    return Data(_at_most(train, config), validation, written.test, teacher)


def _extra_files(config: Config) -> list[list[LabelledArticle]]:
    """Return the articles of each extra file: each is split for itself, so that one more moves no other's articles."""
    paths = [Path(path) for path in config.extra_data]
    read_articles(paths)  # all errors of all files at once
    return [read_articles([path]) for path in paths]


def _at_most(articles: Sequence[LabelledArticle], config: Config) -> list[LabelledArticle]:
    """Return a random part of the articles with about ``max_sentences`` sentences."""
    if not config.max_sentences:
        return list(articles)
    shuffled = list(articles)
    Random(config.seed).shuffle(shuffled)
    kept, sentences = [], 0
    for article in shuffled:
        if sentences >= config.max_sentences:
            break
        kept.append(article)
        sentences += len(article.sentences)
    return kept
