"""A teacher's scores as soft targets beside the labels: distillation (Hinton et al. 2015).

The scores are what `sayso label --model TEACHER` writes as JSONL: ``article_id``, ``position`` and ``scores``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeFloat, PositiveInt, ValidationError

from serving.errors import SaysoError
from serving.labels import LABELS, Label
from training.corpus import LabelledArticle

_LARGEST_ERROR = 0.01  # scores are written rounded


class _Row(BaseModel):
    article_id: str
    position: PositiveInt
    scores: dict[Label, NonNegativeFloat]


def read_teacher(paths: Sequence[Path], articles: Sequence[LabelledArticle]) -> list[NDArray[np.float32]]:
    """Return each article's soft targets, (sentences, 4) in the order of ``LABELS``; zeros where there are no scores.

    Raises SaysoError for a malformed row, for one beyond its article's end, and where no sentence has scores.
    """
    soft = {a.id: np.zeros((len(a.sentences), len(LABELS)), dtype=np.float32) for a in articles}
    for path in paths:
        for place, row in _rows(path):
            found = soft.get(row.article_id)
            if found is None:
                continue
            if row.position > len(found):
                raise SaysoError(
                    f"{place}: position {row.position} of an article of {len(found)} sentences;"
                    " label the file that is trained on"
                )
            found[row.position - 1] = [row.scores[label] for label in LABELS]
    if paths and not any(found.any() for found in soft.values()):
        raise SaysoError(
            f"{', '.join(map(str, paths))}: scores of none of the articles that are trained on;"
            " label the files that are"
        )
    return [soft[article.id] for article in articles]


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
