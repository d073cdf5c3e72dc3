"""Labels kept apart from texts that may not be redistributed, and their way back to labelled rows.

A line of a standoff file is an article: ``article_id``, the ``sha256`` of its text, and its ``sentences``, each with
start and end in the text (in characters) and a code: P party, T outside, E expert, V private, N none, and ``-`` for
doubt. The texts are JSONL, plain or gzipped, with ``article_id``, ``title`` and ``text``.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from serving.errors import SaysoError
from serving.labels import Voice, label_of

CODES = {
    "P": Voice.PARTY,
    "T": Voice.OUTSIDE,
    "E": Voice.EXPERT,
    "V": Voice.PRIVATE,
    "N": Voice.NONE,
}
_Code = Annotated[str, Field(pattern=r"^([PTEV]-?|N)$")]


class _Labels(BaseModel):
    article_id: str
    sha256: str
    sentences: list[tuple[NonNegativeInt, NonNegativeInt, _Code]]


class _Text(BaseModel):
    article_id: str
    title: str
    text: str


_Line = TypeVar("_Line", _Labels, _Text)


def join(labels: Path, texts: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for every sentence, as labelled files have them, in the order of the standoff file.

    Raises SaysoError for a malformed line, and for an article whose text is missing or not the one that was labelled.
    """
    articles = list(_read(labels, _Labels))
    wanted = {article.article_id for article in articles}
    found = {text.article_id: text for text in _read(texts, _Text) if text.article_id in wanted}
    for article in articles:
        text = found.get(article.article_id)
        if text is None or hashlib.sha256(text.text.encode()).hexdigest() != article.sha256:
            problem = "is not in" if text is None else "is not the same text in"
            raise SaysoError(
                f"{labels}: {article.article_id} {problem} {texts}; give the texts that were labelled"
            )
        yield from _rows(article, text)


def _rows(article: _Labels, text: _Text) -> Iterator[dict[str, Any]]:
    for position, (start, end, code) in enumerate(article.sentences, start=1):
        voice, doubt = CODES[code[0]], code.endswith("-")
        yield {
            "article_id": article.article_id,
            "position": position,
            "title": text.title,
            "text": " ".join(text.text[start:end].split()),
            "voice": voice.value,
            "doubt": doubt,
            "label": label_of(voice, doubt).value,
        }


def _read(path: Path, kind: type[_Line]) -> Iterator[_Line]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield _parsed(line, kind, f"{path}:{number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SaysoError(f"{path}: cannot be read ({error}); check the path") from None


def _parsed(line: str, kind: type[_Line], where: str) -> _Line:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SaysoError(f"{where}: {place}: {first['msg']}") from None
