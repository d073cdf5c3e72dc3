"""Files of rows (JSONL, CSV, Parquet) -> records with their line numbers.

A row that cannot be read comes as a record that says why, and the rows after it are still read. Lines count
from 1; in a Parquet file the row counts instead.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from serving.errors import SaysoError

if TYPE_CHECKING:
    import pyarrow as pa

# The largest limit that every platform takes; the default of 128 KiB is less than a long article.
_CSV_FIELD_CHARS = 2**31 - 1
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Record:
    """A row as the file has it, or the problem why it cannot be read."""

    line: int
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    problem: str = ""


class HeaderError(SaysoError):
    """A CSV header that cannot be used; ``line`` is where it begins."""

    def __init__(self, line: int, problem: str) -> None:
        self.line = line
        super().__init__(f"the header cannot be read: {problem}")


def read_records(path: Path, file_format: str) -> Iterator[Record]:
    """Return the rows of a file in the format ``jsonl``, ``csv`` or ``parquet``, one at a time.

    Raises SaysoError where no row can be read at all: a bad CSV header (HeaderError), no Parquet file, no
    pyarrow to read it. The message does not name the file: the caller knows what the user calls it. Raises
    OSError where the file cannot be opened.
    """
    return _READERS[file_format](path)


def read_jsonl(path: Path) -> Iterator[Record]:
    """Yield the objects of a file with one JSON object a line; blank lines are passed over."""
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            # Any line may begin with a byte order mark: files that were joined keep theirs.
            if (row := raw.removeprefix(_BYTE_ORDER_MARK)).strip():
                yield _json_record(line, row)


def read_csv(path: Path) -> Iterator[Record]:
    """Yield the rows of a comma-separated file with a header; all values are strings."""
    csv.field_size_limit(_CSV_FIELD_CHARS)
    undecodable: dict[int, str] = {}
    with path.open("rb") as file:
        rows = _csv_rows(csv.reader(_decoded(file, undecodable), strict=True), undecodable)
        header = next(rows, None)
        if header and (problem := header.problem or _header_problem(header.cells)):
            raise HeaderError(header.line, problem)
        for row in rows:
            yield _csv_record(header.cells if header else [], row)


def read_parquet(path: Path) -> Iterator[Record]:
    """Yield the rows of a Parquet file as Python values."""
    pyarrow = require_pyarrow("reading a Parquet file")
    from pyarrow import parquet

    with path.open("rb") as file:
        line = 1
        try:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=1024):
                yield from _batch_records(batch, line)
                line += batch.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            _no_parquet(error)


def parquet_schema(path: Path) -> dict[str, pa.DataType]:
    """Return the columns of a Parquet file and their types."""
    pyarrow = require_pyarrow("reading a Parquet file")
    from pyarrow import parquet

    try:
        return {column.name: column.type for column in parquet.read_schema(path)}
    except (pyarrow.ArrowException, OSError) as error:
        _no_parquet(error)


def require_pyarrow(purpose: str) -> Any:
    """Return the pyarrow module, or raise SaysoError with the command that installs it."""
    try:
        import pyarrow
    except ImportError:
        command = "pip install 'sayso[parquet]'"
        raise SaysoError(f"{purpose} needs pyarrow, which is not installed: {command}") from None
    return pyarrow


def show(value: object, max_chars: int = 60) -> str:
    """Return a value as it may stand in a message: short, on one line, control characters escaped."""
    shown = repr(value)
    return shown if len(shown) <= max_chars else f"{shown[: max_chars - 1]}…"


def is_null(value: object) -> bool:
    """Say whether a cell is empty: CSV has "" for it, Parquet from pandas often NaN."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
}


# --- JSONL -----------------------------------------------------------------------------------------------


def _json_record(line: int, raw: bytes) -> Record:
    try:
        values = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return Record(line, problem=not_utf8(error))
    except json.JSONDecodeError as error:
        return Record(
            line, problem=f"malformed JSON ({error.msg} at column {error.colno}); expected an object a line"
        )
    except (RecursionError, ValueError) as error:
        return Record(line, problem=f"malformed JSON ({error}); expected one flat object a line")
    if not isinstance(values, dict):
        return Record(line, problem=f'expected a JSON object such as {{"text": "…"}}, found {show(values)}')
    if b"\\u" in raw and not _encodes(values):
        column = next(name for name in values if not _encodes({name: values[name]}))
        found = f"{show(column)} holds half a surrogate pair (\\ud800 to \\udfff)"
        return Record(line, problem=f"{found}; write the whole character")
    return Record(line, values)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _encodes(values: Mapping[str, Any]) -> bool:
    try:
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def not_utf8(error: UnicodeDecodeError) -> str:
    """Return what a message says of a byte that is not UTF-8."""
    place = f"byte 0x{error.object[error.start]:02x} at byte {error.start + 1}"
    return f"not UTF-8 ({place}); save the file as UTF-8"


# --- CSV -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cells:
    line: int
    cells: list[str]
    problem: str = ""


def _decoded(lines: Iterable[bytes], undecodable: dict[int, str]) -> Iterator[str]:
    """Yield the lines as text; one that is not UTF-8 is noted, so that the rows after it are still read."""
    for line, raw in enumerate(lines, start=1):
        encoding = "utf-8-sig" if line == 1 else "utf-8"
        try:
            yield raw.decode(encoding)
        except UnicodeDecodeError as error:
            undecodable[line] = not_utf8(error)
            yield raw.decode(encoding, errors="replace")


def _csv_rows(reader: Any, undecodable: Mapping[int, str]) -> Iterator[_Cells]:
    """Yield the rows that are not empty, the header first, with the line where each begins."""
    while True:
        line, cells, problem = reader.line_num + 1, None, ""
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problem = f"malformed CSV ({error}); put quotes around a text, and double the quotes in it"
        if cells is None and not problem:
            return
        bad = (undecodable[n] for n in range(line, reader.line_num + 1) if n in undecodable)
        if cells or problem:
            yield _Cells(line, cells or [], next(bad, problem))


def _header_problem(header: Sequence[str]) -> str:
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        return f"column {show(twice[0])} appears twice; rename or remove one"
    mark = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    return f"it is separated by {show(mark)}, expected commas; save the file with commas" if mark else ""


def _csv_record(header: Sequence[str], row: _Cells) -> Record:
    if row.problem:
        return Record(row.line, problem=row.problem)
    if len(row.cells) != len(header):
        counts = f"{len(row.cells)} cells, but the header has {len(header)}"
        return Record(row.line, problem=f"{counts}; put quotes around a text that holds a comma")
    return Record(row.line, dict(zip(header, row.cells, strict=True)))


# --- Parquet ---------------------------------------------------------------------------------------------


def _batch_records(batch: pa.RecordBatch, line: int) -> Iterator[Record]:
    try:
        rows = batch.to_pylist()
    except (
        ValueError,
        OverflowError,
    ) as error:  # a string that is not UTF-8, a date that Python does not know
        if batch.num_rows == 1:
            yield Record(
                line, problem=not_utf8(error) if isinstance(error, UnicodeDecodeError) else str(error)
            )
            return
        for number in range(batch.num_rows):
            yield from _batch_records(batch.slice(number, 1), line + number)
        return
    for number, values in enumerate(rows):
        yield Record(line + number, values)


def _no_parquet(error: Exception) -> NoReturn:
    raise SaysoError(f"not a readable Parquet file ({error}); write it again") from None
