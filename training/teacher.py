"""A teacher's scores as soft targets beside the labels: distillation (Hinton et al. 2015).

The scores are what `sayso label --model TEACHER` writes as JSONL: ``article_id``, ``position``, ``title``, ``text``,
``label`` and ``scores``. They may be of articles that nobody has labelled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeFloat, PositiveInt, ValidationError

from serving.errors import SaysoError
from serving.labels import LABELS, Label
from training.corpus import LabelledArticle, Sentence

_LARGEST_ERROR = 0.01  # scores are written rounded


class _Row(BaseModel):
    article_id: str
    position: PositiveInt
    title: str | None = None
    text: str
    label: Label
    scores: dict[Label, NonNegativeFloat]


@dataclass(frozen=True)
class Teacher:
    """A teacher's answers by article, each the rows of its sentences in order."""

    answers: Mapping[str, Sequence[_Row]] = field(default_factory=dict)

    def unlabelled(self, known: Collection[str]) -> list[LabelledArticle]:
        """Return the articles whose ids are not ``known``, with the teacher's labels and no voice or doubt."""
        return [_article(rows) for article, rows in self.answers.items() if article not in known]

    def soft_targets(self, articles: Iterable[LabelledArticle]) -> list[NDArray[np.float32]]:
        """Return each article's scores, (sentences, 4) in the order of ``LABELS``; zeros where there are none."""
        return [self._scores(article) for article in articles]

    def _scores(self, article: LabelledArticle) -> NDArray[np.float32]:
        rows = self.answers.get(article.id)
        if rows is None:
            return np.zeros((len(article.sentences), len(LABELS)), dtype=np.float32)
        if len(rows) != len(article.sentences):
            raise SaysoError(
                f"teacher's scores: {article.id} has {len(rows)} sentences there and {len(article.sentences)} where it"
                " is trained on; label the file that is trained on"
            )
        return np.array([[row.scores[label] for label in LABELS] for row in rows], dtype=np.float32)


def read_teacher(paths: Sequence[Path]) -> Teacher:
    """Return the teacher's answers in the files; raises SaysoError that names the line of a malformed row."""
    answers: dict[str, list[_Row]] = defaultdict(list)
    for path in paths:
        for place, row in _rows(path):
            rows = answers[row.article_id]
            if row.position != len(rows) + 1:
                raise SaysoError(
                    f"{place}: position {row.position} of {row.article_id} after {len(rows)};"
                    " expected all its sentences, once and in order"
                )
            rows.append(row)
    return Teacher(answers)


def _article(rows: Sequence[_Row]) -> LabelledArticle:
    sentences = tuple(Sentence(row.text, None, None, row.label) for row in rows)
    return LabelledArticle(rows[0].article_id, rows[0].title or "", sentences)


def _rows(path: Path) -> Iterator[tuple[str, _Row]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                place = f"{path}:{number}"
                yield place, _row(line, place)
    except (OSError, UnicodeDecodeError) as error:
        raise SaysoError(f"{path}: cannot be read ({error}); check the path") from None


def _row(line: str, place: str) -> _Row:
    try:
        row = _Row.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SaysoError(f"{place}: {where}: {first['msg']}; expected what `sayso label` writes") from None
    if len(row.scores) < len(LABELS) or abs(sum(row.scores.values()) - 1) > _LARGEST_ERROR:
        raise SaysoError(f"{place}: scores: expected one for each label, together 1")
    return row
