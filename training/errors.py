"""A sheet of wrongly answered sentences that a person sorts by kind, and the table that comes of it.

The sheet holds text of the articles and stays with who makes it; the table holds none and goes into the report.
"""

from __future__ import annotations

import csv
import io
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.errors import SaysoError
from serving.records import read_csv
from training.corpus import LabelledArticle
from training.evaluation import Progress, Reader, read

KINDS = {
    "context": "what settles it stands in another sentence, and was missed",
    "role": "a party taken for somebody outside, or the reverse, where the sentence names the speaker",
    "doubt": "a doubt missed, or found where there is none",
    "speech": "narration taken for speech, or the reverse",
    "expert": "an expert or a private person taken for another voice",
    "guide": "the guide leaves it open, or the label is not right",
    "other": "anything else",
}
"""What an error can be of."""
_COLUMNS = (
    "model",
    "data",
    "article_id",
    "position",
    "before",
    "sentence",
    "after",
    "label",
    "answer",
    "score",
    "kind",
)
_BEFORE, _AFTER = 3, 1


@dataclass(frozen=True)
class SortedErrors:
    """How many of the errors that were read, all of one model's on one data set, are of each of the ``KINDS``."""

    model: str
    data: str
    kinds: dict[str, int]


def error_sheet(
    reader: Reader,
    articles: Sequence[LabelledArticle],
    *,
    model: str,
    data: str,
    count: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> bytes:
    """Return a CSV of up to ``count`` errors, drawn at random, in the articles' order, ``kind`` still empty."""
    predicted = read(reader, articles, progress=progress)
    wrong = [
        (article, index, answer)
        for article, answers in zip(articles, predicted, strict=True)
        for index, answer in enumerate(answers)
        if answer.label is not article.sentences[index].label
    ]
    drawn = sorted(random.Random(seed).sample(range(len(wrong)), min(count, len(wrong))))
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(_COLUMNS)
    for article, index, answer in (wrong[i] for i in drawn):
        texts = [sentence.text for sentence in article.sentences]
        before = [article.title, *texts][max(0, index + 1 - _BEFORE) : index + 1]
        writer.writerow(
            [
                *(model, data, article.id, index + 1),
                *(" / ".join(before), texts[index], " / ".join(texts[index + 1 :][:_AFTER])),
                *(article.sentences[index].label, answer.label, round(answer.score, 3), ""),
            ]
        )
    return file.getvalue().encode()


def read_sheet(path: Path) -> SortedErrors:
    """Return the table of a sheet that was filled in; raises SaysoError with the line where it was not."""
    kinds: Counter[str] = Counter()
    sources = set()
    for record in read_csv(path):
        if record.problem:
            raise SaysoError(f"{path}:{record.line}: {record.problem}")
        kind, *source = (str(record.values.get(name) or "").strip() for name in ("kind", "model", "data"))
        if kind not in KINDS:
            found = f"kind {kind!r}" if kind else "no kind"
            raise SaysoError(f"{path}:{record.line}: {found}; write one of {', '.join(KINDS)}")
        kinds[kind] += 1
        sources.add(tuple(source))
    if len(sources) != 1:
        raise SaysoError(
            f"{path}: expected the errors of one model on one data set, found {len(sources)} of them"
        )
    model, data = sources.pop()
    return SortedErrors(model, data, {kind: kinds[kind] for kind in KINDS})
