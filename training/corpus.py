"""Labelled files (JSONL, CSV, Parquet; one sentence a row) -> articles, with every error at ``path:line``.

A row needs ``text`` and either ``label`` or both ``voice`` and ``doubt``. ``article_id``, ``position`` and
``title`` make articles of the rows; a row without ``article_id`` is an article of one. ``needs_context`` marks
sentences that cannot be read alone. Any other column that is the same throughout an article becomes its ``meta``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Any

from serving.errors import SaysoError
from serving.labels import LABELS, VOICES, Label, Voice, label_of
from serving.records import HeaderError, Record, is_null, read_records, show
from serving.windows import Article

COLUMNS = ("article_id", "position", "paragraph", "title", "text", "voice", "doubt", "label")
MAX_TEXT_CHARS = 20_000
"""A longer text is no sentence: most often a whole article in one row."""

_FORMATS = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_WHOLE = re.compile(r"(\d{1,18})(?:\.0+)?")
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class CorpusError(SaysoError):
    """Labelled files that cannot be used; ``errors`` has every error, one ``path:line: …`` each."""

    def __init__(self, errors: Sequence[str]) -> None:
        self.errors = tuple(errors)
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__("\n".join([f"{count} in the labelled data", *errors]))


@dataclass(frozen=True, slots=True)
class Sentence:
    """A labelled sentence; voice and doubt are both known, or both unknown where a row has only a label.

    ``needs_context`` marks one that a careful reader who sees it alone reads otherwise.
    """

    text: str
    voice: Voice | None
    doubt: bool | None
    label: Label
    needs_context: bool = False


@dataclass(frozen=True)
class LabelledArticle:
    """Sentences in reading order; ``meta`` has beat, register, writer, source … where present."""

    id: str
    title: str
    sentences: tuple[Sentence, ...]
    meta: Mapping[str, str] = field(default_factory=dict)

    def unlabelled(self) -> Article:
        """Return what a reader is shown."""
        return Article([s.text for s in self.sentences], self.title)


@dataclass(frozen=True)
class CheckResult:
    """Every error of a file, in the order of its lines, and the articles that its valid rows make."""

    errors: list[str]
    articles: list[LabelledArticle]


@dataclass(frozen=True)
class Counts:
    """How many articles and sentences there are, and how many sentences of each label and voice."""

    articles: int
    sentences: int
    labels: Mapping[Label, int]
    voices: Mapping[Voice, int]
    doubts: int
    unvoiced: int
    """Sentences that have only a label."""


def read_articles(paths: Sequence[Path]) -> list[LabelledArticle]:
    """Return the articles of all files, in file order.

    Articles of different files stay apart: an id that an earlier file has is prefixed with its own path.
    Raises ``CorpusError`` with every error of every file.
    """
    checks = [check_file(path) for path in paths]
    errors = [error for check in checks for error in check.errors]
    errors += [f"{path}: given more than once; name each file once" for path in _repeated(paths)]
    if errors:
        raise CorpusError(errors)
    articles: dict[str, LabelledArticle] = {}
    for path, check in zip(paths, checks, strict=True):
        for article in check.articles:
            free = article.id
            while free in articles:
                free = f"{path}:{free}"
            articles[free] = article if free == article.id else replace(article, id=free)
    return list(articles.values())


def check_file(path: Path) -> CheckResult:
    """Return every error of a JSONL, CSV or Parquet file and the articles of its valid rows; never raises."""
    try:
        rows = list(read_records(path, _format_of(path)))
    except HeaderError as error:
        return CheckResult([f"{path}:{error.line}: {error}"], [])
    except SaysoError as error:
        return CheckResult([f"{path}: {error}"], [])
    except OSError as error:
        return CheckResult([f"{path}: cannot be read ({error.strerror or error}); check the path"], [])
    problems = [_Problem(row.line, row.problem) for row in rows if row.problem]
    readable = [row for row in rows if not row.problem]
    articles: list[LabelledArticle] = []
    if missing := _missing_columns(readable, any_rows=bool(rows)):
        problems += missing
    else:
        articles = _articles(path, _parse_all(readable, problems), problems)
    problems.sort(key=attrgetter("line"))
    return CheckResult([f"{path}:{p.line}: {p.message}" for p in problems], articles)


def count(articles: Iterable[LabelledArticle]) -> Counts:
    """Return the table that ``check-data`` prints: counts per label and voice."""
    articles = list(articles)
    sentences = [sentence for article in articles for sentence in article.sentences]
    labels, voices = Counter(s.label for s in sentences), Counter(s.voice for s in sentences)
    return Counts(
        articles=len(articles),
        sentences=len(sentences),
        labels={label: labels[label] for label in LABELS},
        voices={voice: voices[voice] for voice in VOICES},
        doubts=sum(bool(s.doubt) for s in sentences),
        unvoiced=voices[None],
    )


def checksum(articles: Iterable[LabelledArticle]) -> str:
    """Return a sha256 of titles, texts and labels: the same for any file format, order and ids."""
    digests = sorted(hashlib.sha256(_canonical(article)).hexdigest() for article in articles)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _canonical(article: LabelledArticle) -> bytes:
    sentences = [[s.text, s.voice, s.doubt, s.label] for s in article.sentences]
    return json.dumps([article.title, sentences], separators=(",", ":")).encode()


def _repeated(paths: Sequence[Path]) -> list[Path]:
    times = Counter(path.resolve() for path in paths)
    return [path for path in dict.fromkeys(paths) if times[path.resolve()] > 1]


# --- files -> rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Problem:
    line: int
    message: str


def _format_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise SaysoError(f"unknown file type {path.suffix!r}; expected one of {', '.join(_FORMATS)}")
    return _FORMATS[suffix]


def _missing_columns(rows: Sequence[Record], *, any_rows: bool) -> list[_Problem]:
    """Return what to say once when a column is nowhere, rather than once for every row."""
    if not rows:
        return [] if any_rows else [_Problem(1, "no rows; expected one sentence a row, with text and label")]
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    found = ", ".join(columns) or "none"
    missing = [] if "text" in columns else ["missing column 'text'"]
    if "label" not in columns and not {"voice", "doubt"} <= set(columns):
        missing.append("missing column 'label' (or both 'voice' and 'doubt')")
    return [_Problem(1, f"{what}; columns found: {found}; rename or add it") for what in missing]


# --- rows -> sentences -----------------------------------------------------------------------------------


class _CellError(ValueError):
    """A cell that breaks a rule."""


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A valid row."""

    line: int
    article_id: str | None
    position: int | None
    title: str | None
    sentence: Sentence
    meta: dict[str, str]


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _CellError(f"{name} is {show(value)}; expected a string")
    return value


def _text(value: object) -> str:
    if is_null(value):
        raise _CellError("text is missing; give the sentence, or remove the row")
    text = _string("text", value)
    if not text.strip():
        raise _CellError("text is blank; give the sentence, or remove the row")
    if len(text) > MAX_TEXT_CHARS:
        raise _CellError(
            f"text has {len(text):,} characters, at most {MAX_TEXT_CHARS:,}; put one sentence in a row"
        )
    return text


def _title(value: object) -> str | None:
    return None if is_null(value) else _string("title", value)


def _article_id(value: object) -> str | None:
    if is_null(value):
        return None
    if isinstance(value, str):
        return value
    number = _integer(value)
    if number is None:
        raise _CellError(f"article_id is {show(value)}; expected a string or a whole number")
    return str(number)


def _position(value: object) -> int | None:
    if is_null(value):
        return None
    number = _integer(value)
    if number is None or number < 1:
        raise _CellError(f"position is {show(value)}; expected a whole number from 1")
    return number


def _integer(value: object) -> int | None:
    """Return a whole number, also as text, and also one that a column with gaps has turned into 1.0."""
    if isinstance(value, str) and (match := _WHOLE.fullmatch(value.strip())):
        return int(match[1])
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _boolean(name: str) -> Callable[[object], bool | None]:
    """Return the rule of a column that is true or false."""

    def parse(value: object) -> bool | None:
        if is_null(value):
            return None
        number = _integer(value)
        found = _BOOLEANS.get(str(value if number is None else number).lower())
        if found is None:
            raise _CellError(f"{name} is {show(value)}; expected true or false")
        return found

    return parse


def _member(name: str, kind: type[StrEnum]) -> Callable[[object], StrEnum | None]:
    """Return the rule of a column whose values are those of ``kind``."""

    def parse(value: object) -> StrEnum | None:
        if is_null(value):
            return None
        try:
            return kind(str(value))
        except ValueError:
            near = get_close_matches(str(value)[:80], list(kind), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise _CellError(
                f"unknown {name} {show(value)}; expected one of {', '.join(kind)}{hint}"
            ) from None

    return parse


_RULES: dict[str, Callable[[object], Any]] = {
    "article_id": _article_id,
    "position": _position,
    "title": _title,
    "text": _text,
    "voice": _member("voice", Voice),
    "doubt": _boolean("doubt"),
    "label": _member("label", Label),
    "needs_context": _boolean("needs_context"),
}


def _parse_all(rows: Iterable[Record], problems: list[_Problem]) -> Iterator[_Parsed]:
    """Yield the valid rows; what is wrong with the others is added to ``problems``."""
    for row in rows:
        cells: dict[str, Any] = {}
        wrong: list[str] = []
        for name, rule in _RULES.items():
            try:
                cells[name] = rule(row.values.get(name))
            except _CellError as error:
                wrong.append(str(error))
        if not wrong and (contradiction := _contradiction(cells["voice"], cells["doubt"], cells["label"])):
            wrong.append(contradiction)
        problems += [_Problem(row.line, message) for message in wrong]
        if not wrong:
            yield _parsed(row, cells)


def _contradiction(voice: Voice | None, doubt: bool | None, label: Label | None) -> str:
    """Return how the three columns of a row disagree, or ""."""
    if voice is None and doubt is None:
        return "" if label else "label is missing; give a label, or both voice and doubt"
    if voice is None:
        return "doubt without voice; give both or neither"
    if doubt is None:
        return "voice without doubt; give both or neither"
    if voice is Voice.NONE and doubt:
        return (
            "voice none with doubt; where nobody speaks nobody doubts: set doubt to false, or name the voice"
        )
    derived = label_of(voice, doubt)
    if label not in (None, derived):
        mark = "with" if doubt else "without"
        return (
            f"label {label} contradicts voice {voice} {mark} doubt, which make {derived}; correct one of them"
        )
    return ""


def _parsed(row: Record, cells: Mapping[str, Any]) -> _Parsed:
    voice, doubt = cells["voice"], cells["doubt"]
    label = cells["label"] or label_of(voice, doubt)
    meta = {k: str(v) for k, v in row.values.items() if k and k not in (*COLUMNS, *_RULES) and not is_null(v)}
    sentence = Sentence(cells["text"], voice, doubt, label, bool(cells["needs_context"]))
    return _Parsed(row.line, cells["article_id"], cells["position"], cells["title"], sentence, meta)


# --- sentences -> articles -------------------------------------------------------------------------------


def _articles(path: Path, rows: Iterable[_Parsed], problems: list[_Problem]) -> list[LabelledArticle]:
    groups: dict[str | int, list[_Parsed]] = {}
    for row in rows:
        groups.setdefault(row.line if row.article_id is None else row.article_id, []).append(row)
    return [_article(path, group, problems) for group in groups.values()]


def _article(path: Path, group: Sequence[_Parsed], problems: list[_Problem]) -> LabelledArticle:
    titled = next((row for row in group if row.title is not None), group[0])
    kept = group if group[0].article_id is None else list(_consistent(group, titled, problems))
    kept = sorted(kept, key=lambda row: row.position or 0)
    first = kept[0].meta
    return LabelledArticle(
        id=group[0].article_id or f"{path.name}:{group[0].line}",
        title=titled.title or "",
        sentences=tuple(row.sentence for row in kept),
        meta={k: v for k, v in first.items() if all(row.meta.get(k) == v for row in kept)},
    )


def _consistent(group: Sequence[_Parsed], titled: _Parsed, problems: list[_Problem]) -> Iterator[_Parsed]:
    """Yield an article's rows that agree with the rows before them; at least the first one does."""
    lines: dict[int | None, int] = {}
    for row in group:
        wrong = [w for w in (_wrong_title(row, titled), _wrong_position(row, group[0], lines)) if w]
        problems += [_Problem(row.line, f"article {show(row.article_id)}: {message}") for message in wrong]
        if not wrong:
            lines[row.position] = row.line
            yield row


def _wrong_title(row: _Parsed, titled: _Parsed) -> str:
    if row.title in (None, titled.title):
        return ""
    where = f"{show(titled.title)} in line {titled.line}"
    return f"title {show(row.title)} differs from {where}; give all its sentences the same title"


def _wrong_position(row: _Parsed, first: _Parsed, lines: Mapping[int | None, int]) -> str:
    if (row.position is None) is not (first.position is None):
        which = "missing here, given" if row.position is None else "given here, missing"
        return f"position {which} in line {first.line}; number all its sentences or none"
    if row.position is not None and row.position in lines:
        return (
            f"position {row.position} is also in line {lines[row.position]}; number its sentences 1, 2, 3, …"
        )
    return ""
