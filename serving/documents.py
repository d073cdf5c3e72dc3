"""Inputs of ``sayso label`` (text, JSONL, CSV, Parquet) -> documents: articles with their sentences' columns.

Every input is surveyed before the work starts, so that a file that cannot be used is named at once, rows of
an article that are not next to each other still meet, and the columns of the output are known. Then the
documents come one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from serving.errors import SaysoError
from serving.records import Record, is_null, not_utf8, parquet_schema, read_records, show
from serving.segmentation import Span, segment
from serving.windows import Article

SUFFIXES = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
FORMATS = ("txt", "jsonl", "csv", "parquet")
SEGMENTED = ("article_id", "position", "paragraph", "title", "text", "start", "end")
"""The columns of a sentence that was found in a longer text."""

_TITLE_MAX_CHARS = 300
_SAMPLED_ROWS = 100
_SENTENCES_OF_AN_ARTICLE = 4

Report = Callable[[str], None]
"""Takes ``file:line: problem`` for each row that is skipped."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read: ``name`` is what the user calls it, ``file_format`` one of FORMATS.

    ``by_article`` says that a row holds a whole article, which is to be segmented. ``title`` is a text's
    title, or None where the text's first lines tell.
    """

    path: Path
    name: str
    file_format: str
    by_article: bool = False
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What a first look through a source found.

    ``columns`` maps each column to the kinds of its values: Python types, or the Arrow type of a Parquet
    column. ``scattered`` says that the rows of some article are not next to each other; ``long_texts`` that
    most rows hold several sentences although they are to be read as one each.
    """

    source: Source
    records: int
    columns: dict[str, set[Any]]
    scattered: bool = False
    long_texts: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """An article, and the columns that each of its sentences takes to the output.

    ``loose`` marks a sentence of no article; ``records`` is how many rows of the source are in here.
    """

    article: Article
    rows: Sequence[dict[str, Any]]
    source: str
    records: int
    loose: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """A record whose columns were found right."""

    line: int
    text: str
    article_id: str | None
    position: int | None
    title: str
    values: Mapping[str, Any]


class _CellError(ValueError):
    """A cell that cannot be used."""


# --- before the work: which sources, and what is in them -------------------------------------------------


def format_of(name: str) -> str:
    """Return the format that a file name's suffix tells; raise SaysoError where it tells none."""
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        found = f"unknown file type {show(suffix)}" if suffix else "no suffix that tells its type"
        raise SaysoError(f"{found}; expected {', '.join(SUFFIXES)}, or name the format with --input-format")
    return SUFFIXES[suffix]


def survey_all(sources: Sequence[Source]) -> list[Survey]:
    """Return a survey of every source, or raise SaysoError that names every one that cannot be used."""
    surveys, problems = [], []
    for source in sources:
        try:
            surveys.append(survey(source))
        except SaysoError as error:
            problems.append(f"{source.name}: {error}")
        except OSError as error:
            problems.append(f"{source.name}: cannot be read ({error.strerror or error}); check the path")
    if problems:
        raise SaysoError("\n".join(problems))
    return surveys


def survey(source: Source) -> Survey:
    """Return what a look through a source finds; raise SaysoError where nothing in it can be labelled."""
    with source.path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise SaysoError("the file is empty; expected at least one sentence")
    if source.file_format != "parquet" and head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SaysoError("the file is UTF-16; save it as UTF-8")
    if source.file_format == "txt":
        _read_text(source.path)
        return Survey(source, 1, dict(_SEGMENTED_KINDS))
    found = _survey_records(source)
    _check_columns(found)
    return found


def _survey_records(source: Source) -> Survey:
    columns: dict[str, set[Any]] = {}
    order = _ArticleOrder()
    sample = _Sample()
    records = 0
    for record in read_records(source.path, source.file_format):
        records += 1
        for name, value in record.values.items():
            columns.setdefault(name, set()).add(_kind(value))
        order.see(record.values.get("article_id"))
        if not source.by_article:
            sample.see(record.values.get("text"))
    if source.file_format == "parquet":
        columns = {name: {kind} for name, kind in parquet_schema(source.path).items()}
    return Survey(source, records, columns, order.scattered and not source.by_article, sample.long)


def _check_columns(found: Survey) -> None:
    if not found.records:
        raise SaysoError("the file has no rows; expected at least one sentence")
    if found.columns and "text" not in found.columns:
        columns = ", ".join(show(name) for name in found.columns)
        raise SaysoError(f"no column 'text'; found {columns}. Rename the column with the sentences to 'text'")


_SEGMENTED_KINDS: dict[str, set[Any]] = {
    name: {str if name in ("article_id", "title", "text") else int} for name in SEGMENTED
}


def _kind(value: object) -> type:
    """Return a value's type as far as its column's depends on it: ``object`` for what only JSON can hold."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int if -(2**63) <= value < 2**63 else object
    return type(value) if isinstance(value, str | bool | float | None) else object


class _ArticleOrder:
    """Watches whether the rows of each article are next to each other."""

    def __init__(self) -> None:
        self.scattered = False
        self._last: object = None
        self._seen: set[str] = set()

    def see(self, article_id: object) -> None:
        number = _integer(article_id)
        key = None if is_null(article_id) else str(article_id if number is None else number)
        if key != self._last and key is not None:
            self.scattered |= key in self._seen
            self._seen.add(key)
        self._last = key


class _Sample:
    """Watches whether the first texts look like articles rather than like sentences."""

    def __init__(self) -> None:
        self._texts = self._articles = 0

    def see(self, text: object) -> None:
        if self._texts < _SAMPLED_ROWS and isinstance(text, str):
            self._texts += 1
            self._articles += len(segment(text[:5000])) >= _SENTENCES_OF_AN_ARTICLE

    @property
    def long(self) -> bool:
        return self._articles * 2 > self._texts


# --- sources -> documents --------------------------------------------------------------------------------


def read_documents(found: Survey, reserved: Collection[str], report: Report) -> Iterator[Document]:
    """Yield a source's documents; rows that cannot be used go to ``report``.

    ``reserved`` are the columns that the output adds; one of the input with such a name becomes ``input_…``.
    Rows of one article come in the order of their positions, and articles in the order of their first rows.
    """
    source = found.source
    if source.file_format == "txt":
        yield from _with_sentences([_text_document(source)], report)
        return
    rows = _valid_rows(source, report)
    renames = _renames(found, reserved)
    if source.by_article:
        yield from _with_sentences((_segmented(source, row, renames) for row in rows), report)
    else:
        groups = _gathered(rows) if found.scattered else _neighbours(rows)
        yield from (_of_rows(source, group, renames) for group in groups)


def kept_columns(found: Survey, reserved: Collection[str]) -> dict[str, set[Any]]:
    """Return the columns that a source's sentences take to the output, in order, with their values' kinds."""
    renames = _renames(found, reserved)
    own = {renames.get(name, name): kinds for name, kinds in found.columns.items()}
    return _SEGMENTED_KINDS | _without(own, SEGMENTED) if found.source.by_article else own


def _renames(found: Survey, reserved: Collection[str]) -> dict[str, str]:
    """Return new names for the columns of the input whose names the output needs itself."""
    needed = set(reserved)
    if found.source.by_article:
        needed |= set(SEGMENTED) - {"article_id", "title", "text"}
    taken = needed | set(found.columns)
    renames = {}
    for name in found.columns:
        if name in needed and found.source.file_format != "txt":
            new = f"input_{name}"
            while new in taken:
                new = f"input_{new}"
            taken.add(new)
            renames[name] = new
    return renames


def _with_sentences(documents: Iterable[Document], report: Report) -> Iterator[Document]:
    for document in documents:
        if document.rows:
            yield document
        else:
            report(f"{document.source}: a text in which no sentence was found")


def _valid_rows(source: Source, report: Report) -> Iterator[_Row]:
    for record in read_records(source.path, source.file_format):
        try:
            yield _row(record)
        except _CellError as error:
            report(f"{source.name}:{record.line}: {error}")


def _neighbours(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Yield the rows of each article, which are next to each other."""
    for article_id, group in groupby(rows, key=lambda row: row.article_id):
        if article_id is None:
            yield from ([row] for row in group)
        else:
            yield list(group)


def _gathered(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Yield the rows of each article wherever they stand; the whole source is in memory meanwhile."""
    groups: dict[str | int, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.line if row.article_id is None else row.article_id, []).append(row)
    yield from groups.values()


def _of_rows(source: Source, group: list[_Row], renames: Mapping[str, str]) -> Document:
    if all(row.position is not None for row in group):
        group = sorted(group, key=lambda row: row.position or 0)
    title = next((row.title for row in group if row.title), "")
    rows = [_renamed(row.values, renames) for row in group]
    article = Article([row.text for row in group], title)
    return Document(article, rows, source.name, len(group), loose=group[0].article_id is None)


def _segmented(source: Source, row: _Row, renames: Mapping[str, str]) -> Document:
    others = _renamed(_without(row.values, ("article_id", "title", "text")), renames)
    article_id = f"{source.name}:{row.line}" if row.article_id is None else row.article_id
    return _document(source, row.text, _Heading(article_id, row.title, others))


def _without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _renamed(values: Mapping[str, Any], renames: Mapping[str, str]) -> dict[str, Any]:
    return {renames.get(name, name): value for name, value in values.items()}


# --- texts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Heading:
    """What every sentence of a text shares."""

    article_id: str
    title: str
    others: dict[str, Any] = field(default_factory=dict)


def _text_document(source: Source) -> Document:
    text = _read_text(source.path)
    begin = 0
    title = source.title
    if title is None and (found := find_title(text)):
        title, begin = text[found.start : found.end], found.end
    return _document(source, text, _Heading(source.name, title or ""), begin=begin)


def find_title(text: str) -> Span | None:
    """Return where a text's title is: a short first line with no full stop, and a blank line after it.

    >>> find_title("Bridge closed\\n\\nThe city says it is safe.")
    Span(start=0, end=13)
    """
    begin = len(text) - len(text.lstrip())
    end = text.find("\n", begin, begin + _TITLE_MAX_CHARS)
    blank_end = text.find("\n", end + 1)
    title = text[begin:end].rstrip()
    if end < 0 or blank_end < 0 or text[end:blank_end].strip() or not text[blank_end:].strip():
        return None
    return None if title.rstrip("\"'”’»)").endswith((".", "…", "。")) else Span(begin, begin + len(title))


def _document(source: Source, text: str, heading: _Heading, *, begin: int = 0) -> Document:
    """Return the document of a text's sentences from ``begin`` on."""
    spans = [Span(span.start + begin, span.end + begin) for span in segment(text[begin:])]
    rows: list[dict[str, Any]] = []
    for paragraph, span in zip(_paragraphs(text, spans), spans, strict=True):
        row = {
            "article_id": heading.article_id,
            "position": len(rows) + 1,
            "paragraph": paragraph,
            "title": heading.title,
            "text": text[span.start : span.end],
            "start": span.start,
            "end": span.end,
        }
        rows.append(row | heading.others)
    return Document(Article([row["text"] for row in rows], heading.title), rows, source.name, 1)


def _paragraphs(text: str, spans: Sequence[Span]) -> list[int]:
    """Return each span's paragraph, from 1: blank lines part them, or every line where there are none."""
    gaps = [text[left.end : right.start] for left, right in pairwise(spans)]
    breaks = [gap.count("\n") > 1 for gap in gaps]
    if not any(breaks):
        breaks = ["\n" in gap for gap in gaps]
    numbers = [1]
    for is_break in breaks:
        numbers.append(numbers[-1] + is_break)
    return numbers[: len(spans)]


def _read_text(path: Path) -> str:
    """Return a text file's content; line ends stay as they are, so that offsets are those of the file."""
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SaysoError(f"line {line} is {not_utf8(error)}") from None
    if not text.strip():
        raise SaysoError("the file has only blanks; expected at least one sentence")
    return text


# --- cells -----------------------------------------------------------------------------------------------


def _row(record: Record) -> _Row:
    """Return a record's row; raise _CellError with what is wrong with it."""
    if record.problem:
        raise _CellError(record.problem)
    values = record.values
    return _Row(
        line=record.line,
        text=_text(values.get("text")),
        article_id=_article_id(values.get("article_id")),
        position=_position(values.get("position")),
        title=_title(values.get("title")),
        values=values,
    )


def _text(value: object) -> str:
    if is_null(value):
        raise _CellError("'text' is missing or empty; give the sentence, or remove the row")
    if not isinstance(value, str):
        raise _CellError(f"'text' is {show(value)}; expected a string")
    if not value.strip():
        raise _CellError("'text' is blank; give the sentence, or remove the row")
    return value


def _title(value: object) -> str:
    if is_null(value):
        return ""
    if not isinstance(value, str):
        raise _CellError(f"'title' is {show(value)}; expected a string")
    return value


def _article_id(value: object) -> str | None:
    if is_null(value):
        return None
    if isinstance(value, str):
        return value
    if (number := _integer(value)) is None:
        raise _CellError(f"'article_id' is {show(value)}; expected a string or a whole number")
    return str(number)


def _position(value: object) -> int | None:
    if is_null(value):
        return None
    is_number = isinstance(value, str) and value.isdecimal() and len(value) < 19
    if (number := _integer(int(str(value)) if is_number else value)) is None:
        raise _CellError(f"'position' is {show(value)}; expected a whole number")
    return number


def _integer(value: object) -> int | None:
    """Return a whole number, also one that a column with gaps has turned into a float."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None
