"""Labelled documents -> JSONL, CSV, Parquet, an HTML report or a table for the terminal.

A writer takes documents one at a time and never holds them all; ``open_output`` puts the whole file in its
place, or leaves the old one as it was.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import secrets
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, time
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from serving.documents import Document
from serving.labels import LABELS, SCORE_DIGITS, Label
from serving.records import require_pyarrow

if TYPE_CHECKING:
    import pyarrow as pa
    from jinja2.environment import TemplateModule
    from rich.console import Console
    from rich.text import Text

    from serving.predictor import Prediction

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".html": "html",
    ".htm": "html",
    ".txt": "table",
}
FORMATS = ("table", "jsonl", "csv", "parquet", "html")
NAMES = {
    Label.OFFICIAL_CLAIM: "official claim",
    Label.THIRD_PARTY_ASSESSMENT: "third-party assessment",
    Label.EXPERT_SKEPTICISM: "expert skepticism",
    Label.OTHER: "other",
}
# Okabe and Ito's palette stays distinct for colour-blind readers; the sign tells the label without colour.
STYLES = {
    Label.OFFICIAL_CLAIM: ("■", "bold #0072b2"),
    Label.THIRD_PARTY_ASSESSMENT: ("◆", "bold #009e73"),
    Label.EXPERT_SKEPTICISM: ("▲", "bold #d55e00"),
    Label.OTHER: ("·", "dim"),
}
_SCORE_COLUMNS = {f"score_{label}": label for label in LABELS}
ANSWERS = ("label", "score", "scores", *_SCORE_COLUMNS, "voice", "doubt", "doubt_score", "truncated")
"""The columns that the output adds; JSONL has the object ``scores``, CSV and Parquet a column for each."""

_SIGN_WIDTH = max(map(len, NAMES.values())) + 2
_BAR_WIDTH = 30
_ROW_GROUP = 8192
_SPOOL_BYTES = 8 * 2**20
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A document and a prediction for each of its sentences."""

    document: Document
    predictions: Sequence[Prediction]


@dataclass
class Tally:
    """How many articles were labelled, how many sentences of no article, and how many of each label."""

    articles: int = 0
    loose: int = 0
    labels: Counter[Label] = field(default_factory=Counter)

    @property
    def sentences(self) -> int:
        """The number of sentences, those of no article included."""
        return self.labels.total()

    def add(self, labelled: Labelled) -> None:
        """Count one document more."""
        self.articles += not labelled.document.loose
        self.loose += labelled.document.loose
        self.labels.update(prediction.label for prediction in labelled.predictions)

    def share(self, label: Label) -> float:
        """Return a label's share of the sentences, 0 to 1."""
        return self.labels[label] / self.sentences if self.sentences else 0.0

    def __str__(self) -> str:
        sentences = "1 sentence" if self.sentences == 1 else f"{self.sentences:,} sentences"
        articles = "1 article" if self.articles == 1 else f"{self.articles:,} articles"
        if not self.articles:
            return sentences
        if not self.loose:
            return f"{sentences} in {articles}"
        return f"{sentences}, {self.sentences - self.loose:,} in {articles} and {self.loose:,} alone"


class Writer(Protocol):
    """Takes labelled documents, then ``finish`` where all went well, then ``close``."""

    def write(self, labelled: Labelled) -> None:
        """Write one document."""

    def finish(self, tally: Tally) -> None:
        """Write what comes at the end."""

    def close(self) -> None:
        """Let go of what is held, before the stream is closed."""


# --- where the output goes -------------------------------------------------------------------------------


@contextmanager
def open_output(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes ``path``'s place when the block ends without an error.

    Whatever happens before, also Ctrl-C, ``path`` stays as it was and nothing is left beside it. A device or
    a pipe is written to directly.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    temporary = path.with_name(f".sayso-{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def new_writer(file_format: str, stream: BinaryIO, columns: Mapping[str, set[Any]], model: str) -> Writer:
    """Return a writer of ``jsonl``, ``csv``, ``parquet``, ``html`` or ``table``.

    ``columns`` are the columns that the documents' rows may have, and the kinds of their values, as
    ``serving.documents.kept_columns`` gives them; ``model`` is the model's version, for the report.
    """
    if file_format == "csv":
        return CsvWriter(stream, columns)
    if file_format == "parquet":
        return ParquetWriter(stream, columns)
    if file_format == "html":
        return HtmlWriter(stream, model)
    if file_format == "table":
        return TableWriter(plain_console(stream))
    return JsonlWriter(stream)


# --- rows ------------------------------------------------------------------------------------------------


def answer(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction's columns in the order in which the output has them."""
    return {
        "label": str(prediction.label),
        "score": round(prediction.score, SCORE_DIGITS),
        "scores": {str(label): round(score, SCORE_DIGITS) for label, score in prediction.scores.items()},
        "voice": str(prediction.voice),
        "doubt": prediction.doubt,
        "doubt_score": round(prediction.doubt_score, SCORE_DIGITS),
        "truncated": prediction.truncated,
    }


def _flat_answer(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction's columns for a table, with one column for each label's score."""
    columns = answer(prediction)
    columns |= {name: columns["scores"][label] for name, label in _SCORE_COLUMNS.items()}
    return {name: columns[name] for name in _FLAT_KINDS}


_FLAT_KINDS: dict[str, set[Any]] = {
    "label": {str},
    "score": {float},
    **{name: {float} for name in _SCORE_COLUMNS},
    "voice": {str},
    "doubt": {bool},
    "doubt_score": {float},
    "truncated": {bool},
}


def to_json(value: object) -> str:
    """Return a value as JSON on one line; what JSON does not know becomes a string, NaN becomes null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_jsonable)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=_jsonable)


def _jsonable(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


class JsonlWriter:
    """Writes one object a sentence: the input's columns, then the answer."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, labelled: Labelled) -> None:
        """Write one document."""
        for row, prediction in zip(labelled.document.rows, labelled.predictions, strict=True):
            self._stream.write(f"{to_json(row | answer(prediction))}\n".encode())
        self._stream.flush()

    def finish(self, tally: Tally) -> None:
        """Write nothing more."""

    def close(self) -> None:
        """Hold nothing."""


class CsvWriter:
    """Writes RFC 4180 CSV in UTF-8: a header, then one row a sentence; lists and objects become JSON."""

    def __init__(self, stream: BinaryIO, columns: Mapping[str, set[Any]]) -> None:
        self._stream = stream
        self._names = [*columns, *_FLAT_KINDS]
        self._rows([self._names])

    def write(self, labelled: Labelled) -> None:
        """Write one document."""
        rows = zip(labelled.document.rows, labelled.predictions, strict=True)
        flat = (row | _flat_answer(prediction) for row, prediction in rows)
        self._rows([[_cell(columns.get(name)) for name in self._names] for columns in flat])

    def finish(self, tally: Tally) -> None:
        """Write nothing more."""

    def close(self) -> None:
        """Hold nothing."""

    def _rows(self, rows: Sequence[Sequence[str]]) -> None:
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows(rows)
        self._stream.write(buffer.getvalue().encode())
        self._stream.flush()


def _cell(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool | list | dict | tuple):
        return to_json(value)
    return _jsonable(value)


class ParquetWriter:
    """Writes Parquet in row groups; columns keep their types, those of mixed or nested values hold JSON."""

    def __init__(self, stream: BinaryIO, columns: Mapping[str, set[Any]]) -> None:
        self._pyarrow = require_pyarrow("writing a Parquet file")
        from pyarrow import parquet

        kinds = {**columns, **_FLAT_KINDS}
        self._schema = self._pyarrow.schema([(name, _arrow_type(values)) for name, values in kinds.items()])
        self._json = {name for name, values in kinds.items() if _is_json(values)}
        self._file = parquet.ParquetWriter(stream, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, labelled: Labelled) -> None:
        """Take one document; it is written when its row group is full."""
        for row, prediction in zip(labelled.document.rows, labelled.predictions, strict=True):
            kept = {name: self._value(name, value) for name, value in row.items()}
            self._rows.append(kept | _flat_answer(prediction))
        if len(self._rows) >= _ROW_GROUP:
            self._write_group()

    def finish(self, tally: Tally) -> None:
        """Write the last row group."""
        self._write_group()

    def close(self) -> None:
        """Write the footer: Arrow's writer must, and does it too late where one leaves it to itself."""
        self._file.close()

    def _value(self, name: str, value: object) -> object:
        if name not in self._json or value is None:
            return value
        return value if isinstance(value, str) else to_json(value)

    def _write_group(self) -> None:
        if self._rows:
            self._file.write_table(self._pyarrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def _arrow_types(kinds: set[Any]) -> set[pa.DataType]:
    """Return the Arrow types of a column's kinds; ``object`` has none."""
    import pyarrow as pa

    by_python = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64(), object: None}
    types = {by_python.get(kind, kind) for kind in kinds - {type(None)}}
    return {pa.float64()} if types == {pa.int64(), pa.float64()} else types


def _is_json(kinds: set[Any]) -> bool:
    types = _arrow_types(kinds)
    return len(types) > 1 or None in types


def _arrow_type(kinds: set[Any]) -> pa.DataType:
    import pyarrow as pa

    return pa.string() if _is_json(kinds) else next(iter(_arrow_types(kinds)), pa.string())


# --- the table for the terminal --------------------------------------------------------------------------


def plain_console(stream: BinaryIO) -> Console:
    """Return a console that writes a table without colour into a file or a pipe."""
    from rich.console import Console

    text = io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="\n", write_through=True)
    text.close = lambda: None  # type: ignore[method-assign]  # the stream's owner closes it
    return Console(file=text, color_system=None, force_terminal=False, highlight=False)


def visible(text: str) -> str:
    """Return a text that steers no terminal: control characters become �, white space becomes a blank."""
    return " ".join("".join(map(_visible, text)).split())


@cache
def _visible(char: str) -> str:
    if char.isspace():
        return " "
    if char in _BIDI_CONTROLS:
        return ""
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) == "Cc" else char


class TableWriter:
    """Prints each sentence with its label and score, under its article's title, and the counts at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = False
        self._loose_source: str | None = None

    def write(self, labelled: Labelled) -> None:
        """Print one document."""
        from rich.table import Table
        from rich.text import Text

        self._heading(labelled.document)
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(width=_SIGN_WIDTH, no_wrap=True)
        table.add_column(width=4, justify="right")
        table.add_column(ratio=1, overflow="fold")
        for row, prediction in zip(labelled.document.rows, labelled.predictions, strict=True):
            cut = Text(" (cut: only its beginning was read)" if prediction.truncated else "", style="dim")
            sentence = Text(visible(row["text"])) + cut
            table.add_row(_sign(prediction.label), f"{prediction.score:.2f}", sentence)
        self._console.print(table)

    def finish(self, tally: Tally) -> None:
        """Print the counts and shares."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=_SIGN_WIDTH)
        for label in LABELS:
            share = tally.share(label)
            bar = Text("━" * round(share * _BAR_WIDTH), style=STYLES[label][1])
            table.add_row(
                _sign(label), Text(f"{tally.labels[label]:,}", justify="right"), f"{share:>4.0%}", bar
            )
        self._console.print(Text(f"\n{tally}", style="bold"), table, sep="\n")

    def close(self) -> None:
        """Hold nothing."""

    def _heading(self, document: Document) -> None:
        from rich.text import Text

        if document.loose and self._loose_source == document.source:
            return
        if self._begun:
            self._console.print()
        self._begun = True
        self._loose_source = document.source if document.loose else None
        title = "" if document.loose else visible(document.article.title)
        self._console.print(
            Text(f"{title}  " if title else "", style="bold") + Text(_name(document), style="dim")
        )


def _sign(label: Label) -> Text:
    from rich.text import Text

    sign, style = STYLES[label]
    return Text(f"{sign} {NAMES[label]}", style=style)


# --- the report ------------------------------------------------------------------------------------------


class HtmlWriter:
    """Writes one page that needs nothing else: a legend with counts, then articles in tinted sentences."""

    def __init__(self, stream: BinaryIO, model: str) -> None:
        self._stream = stream
        self._model = model
        self._title = ""
        self._loose_source: str | None = None
        self._template = _report_template()
        # The page begins with the counts, which are known last.
        self._body = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115

    def write(self, labelled: Labelled) -> None:
        """Take one document."""
        document = labelled.document
        if document.loose and self._loose_source != document.source:
            self._add(self._template.loose_heading(visible(document.source)))  # type: ignore[attr-defined]
        self._loose_source = document.source if document.loose else None
        self._title = self._title or visible(document.article.title) or _name(document)
        self._add(self._template.document(_view(labelled)))  # type: ignore[attr-defined]

    def finish(self, tally: Tally) -> None:
        """Write the page."""
        title = self._title if tally.articles == 1 and not tally.loose else str(tally)
        counts = [
            {"label": x, "name": NAMES[x], "count": tally.labels[x], "share": tally.share(x)} for x in LABELS
        ]
        self._stream.write(str(self._template.head(title, tally, counts)).encode())  # type: ignore[attr-defined]
        self._body.seek(0)
        shutil.copyfileobj(self._body, self._stream)
        self._stream.write(str(self._template.foot(self._model)).encode())  # type: ignore[attr-defined]

    def close(self) -> None:
        """Drop the articles."""
        self._body.close()

    def _add(self, html: object) -> None:
        self._body.write(str(html).encode())


def _report_template() -> TemplateModule:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("serving", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").module


def _view(labelled: Labelled) -> dict[str, Any]:
    """Return what the template shows of a document: its paragraphs, and its counts."""
    document = labelled.document
    tally = Tally()
    tally.add(labelled)
    sentences = list(zip(document.rows, labelled.predictions, strict=True))
    spaced = [True, *(a.get("end") is None or a["end"] != b.get("start") for a, b in pairwise(document.rows))]
    views = [
        _sentence(row, prediction, space) for (row, prediction), space in zip(sentences, spaced, strict=True)
    ]
    paragraphs = groupby(views, key=lambda view: view["paragraph"])
    return {
        "loose": document.loose,
        "title": visible(document.article.title),
        "name": _name(document),
        "counts": [(label, NAMES[label], tally.labels[label]) for label in LABELS if tally.labels[label]],
        "paragraphs": [list(group) for _, group in paragraphs],
    }


def _sentence(row: Mapping[str, Any], prediction: Prediction, space: bool) -> dict[str, Any]:
    hint = f"{NAMES[prediction.label]} {prediction.score:.0%} · voice: {prediction.voice}"
    hint += f" · {'doubt' if prediction.doubt else 'no doubt'} ({prediction.doubt_score:.0%})"
    hint += " · only its beginning was read" if prediction.truncated else ""
    paragraph = str(row.get("paragraph"))
    return {
        "label": prediction.label,
        "hint": hint,
        "text": visible(row["text"]),
        "space": space,
        "paragraph": paragraph,
    }


def _name(document: Document) -> str:
    article_id = document.rows[0].get("article_id")
    return visible(document.source if document.loose or article_id in (None, "") else str(article_id))
