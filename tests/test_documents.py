"""Inputs become documents: titles, offsets, articles out of rows, and every unusable row or file named."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving.documents import (
    Document,
    Source,
    find_title,
    format_of,
    kept_columns,
    read_documents,
    survey,
    survey_all,
)
from serving.errors import SaysoError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

RESERVED = ("label", "score")
BODY = "The harbour authority said the cranes are safe. The union disagreed.\n\nAn engineer doubts it."


def _read(path: Path, **options: Any) -> tuple[list[Document], list[str]]:
    """Return the documents of a file and the problems that were reported."""
    source = Source(path, path.name, options.pop("file_format", None) or format_of(path.name), **options)
    problems: list[str] = []
    return list(read_documents(survey(source), RESERVED, problems.append)), problems


def _jsonl(path: Path, *rows: object) -> Path:
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8"
    )
    return path


def _text(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- texts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "title"),
    [
        (f"Cranes pass inspection\n\n{BODY}", "Cranes pass inspection"),
        (f"\n  Cranes pass inspection  \r\n\r\n{BODY}", "Cranes pass inspection"),
        (f"Are the cranes safe?\n \n{BODY}", "Are the cranes safe?"),
        (f"الرافعات آمنة\n\n{BODY}", "الرافعات آمنة"),
        (f"The cranes are safe, the port said.\n\n{BODY}", None),
        (f'"The cranes are safe."\n\n{BODY}', None),
        (f"Cranes pass inspection\n{BODY}", None),
        (f"{'Cranes ' * 60}\n\n{BODY}", None),
        ("Cranes pass inspection\n\n", None),
        ("Cranes pass inspection", None),
        ("", None),
    ],
)
def test_a_first_line_is_the_title_if_a_blank_line_follows_and_no_full_stop_ends_it(
    text: str, title: str | None
) -> None:
    found = find_title(text)
    assert (text[found.start : found.end] if found else None) == title


def test_a_text_becomes_one_article_with_title_paragraphs_and_offsets(tmp_path: Path) -> None:
    text = f"Cranes pass inspection\r\n\r\n{BODY}\r\n"
    [document], problems = _read(_text(tmp_path / "a.txt", text))
    assert document.article.title == "Cranes pass inspection"
    assert list(document.article.sentences) == [
        "The harbour authority said the cranes are safe.",
        "The union disagreed.",
        "An engineer doubts it.",
    ]
    assert [row["paragraph"] for row in document.rows] == [1, 1, 2]
    assert [row["position"] for row in document.rows] == [1, 2, 3]
    assert {row["article_id"] for row in document.rows} == {"a.txt"}
    assert all(text[row["start"] : row["end"]] == row["text"] for row in document.rows)
    assert not problems


def test_a_given_title_leaves_the_first_line_in_the_text(tmp_path: Path) -> None:
    path = _text(tmp_path / "a.txt", f"Cranes pass inspection\n\n{BODY}")
    [given_title], _ = _read(path, title="Harbour")
    [no_title], _ = _read(path, title="")
    assert (given_title.article.title, no_title.article.title) == ("Harbour", "")
    assert given_title.article.sentences[0] == no_title.article.sentences[0] == "Cranes pass inspection"


def test_without_blank_lines_every_line_is_a_paragraph(tmp_path: Path) -> None:
    [document], _ = _read(_text(tmp_path / "a.txt", "It is safe. He said so.\nShe doubts it."))
    assert [row["paragraph"] for row in document.rows] == [1, 1, 2]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
@example("\ufeffIt is safe.")
@example("A\x00b. \x1b[31mRed!\r\n\r\n\u202eHe said 😀. הנמל בטוח.")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_offsets_point_into_any_text(tmp_path: Path, text: str) -> None:
    path = _text(tmp_path / "a.txt", "\ufeff" + text)
    try:
        documents, _ = _read(path)
    except SaysoError:
        assert not text.strip()
        return
    for document in documents:
        assert all(text[row["start"] : row["end"]] == row["text"] for row in document.rows)
        assert [row["text"] for row in document.rows] == list(document.article.sentences)


# --- rows ------------------------------------------------------------------------------------------------


ROWS = [
    {"article_id": "a", "position": 2, "title": "Cranes", "text": "He said so.", "beat": "harbour"},
    {"article_id": "a", "position": 1, "title": "Cranes", "text": "It is safe.", "beat": "harbour"},
    {"article_id": "b", "position": 1, "title": "", "text": "Prices rose.", "beat": "markets"},
]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        return _jsonl(path, *rows)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_of_an_article_are_read_in_the_order_of_their_positions(tmp_path: Path, suffix: str) -> None:
    documents, problems = _read(_write(tmp_path / f"a{suffix}", ROWS))
    assert [list(d.article.sentences) for d in documents] == [
        ["It is safe.", "He said so."],
        ["Prices rose."],
    ]
    assert [d.article.title for d in documents] == ["Cranes", ""]
    assert [row["beat"] for row in documents[0].rows] == ["harbour", "harbour"]
    assert [d.loose for d in documents] == [False, False]
    assert not problems


@pytest.mark.parametrize("missing", [{}, {"article_id": None}, {"article_id": ""}])
def test_rows_without_an_article_are_read_alone(tmp_path: Path, missing: dict[str, Any]) -> None:
    documents, _ = _read(_jsonl(tmp_path / "a.jsonl", {"text": "One."} | missing, {"text": "Two."} | missing))
    assert [list(d.article.sentences) for d in documents] == [["One."], ["Two."]]
    assert all(d.loose for d in documents)


def test_rows_of_an_article_meet_wherever_they_stand(tmp_path: Path) -> None:
    rows = [
        {"article_id": i, "text": t}
        for i, t in [("a", "One."), ("b", "Two."), ("a", "Three."), (None, "Four.")]
    ]
    documents, _ = _read(_jsonl(tmp_path / "a.jsonl", *rows))
    assert [list(d.article.sentences) for d in documents] == [["One.", "Three."], ["Two."], ["Four."]]


def test_a_row_with_a_whole_article_is_segmented(tmp_path: Path) -> None:
    rows = [
        {"text": BODY, "title": "Cranes", "source": "wire", "start": 5},
        {"article_id": 7, "text": "One. Two."},
    ]
    path = _jsonl(tmp_path / "a.jsonl", *rows)
    documents, _ = _read(path, by_article=True)
    assert [d.rows[0]["article_id"] for d in documents] == ["a.jsonl:1", "7"]
    assert documents[0].article.title == "Cranes"
    assert all(BODY[row["start"] : row["end"]] == row["text"] for row in documents[0].rows)
    assert {row["source"] for row in documents[0].rows} == {"wire"}
    assert {row["input_start"] for row in documents[0].rows} == {5}


def test_columns_that_the_output_adds_are_kept_under_another_name(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "a.jsonl", {"text": "One.", "label": "other", "input_label": "old", "score": 1})
    [document], _ = _read(path)
    assert document.rows[0] == {
        "text": "One.",
        "input_input_label": "other",
        "input_label": "old",
        "input_score": 1,
    }
    columns = kept_columns(survey(Source(path, "a.jsonl", "jsonl")), RESERVED)
    assert list(columns) == list(document.rows[0])


def test_kinds_of_columns_are_known_before_the_work(tmp_path: Path) -> None:
    path = _jsonl(
        tmp_path / "a.jsonl", {"text": "One.", "n": 1, "big": 2**70, "x": [1]}, {"text": "Two.", "n": 0.5}
    )
    kinds = survey(Source(path, "a.jsonl", "jsonl")).columns
    assert kinds == {"text": {str}, "n": {int, float}, "big": {object}, "x": {object}}
    parquet = _write(tmp_path / "a.parquet", [{"text": "One.", "n": 1}])
    assert survey(Source(parquet, "a.parquet", "parquet")).columns == {
        "text": {pa.string()},
        "n": {pa.int64()},
    }


@pytest.mark.parametrize(
    ("text", "is_article"), [(" ".join(["He said so."] * 8), True), ("He said so.", False)]
)
def test_rows_that_look_like_articles_are_noticed(tmp_path: Path, text: str, is_article: bool) -> None:
    path = _jsonl(tmp_path / "a.jsonl", *[{"text": text}] * 5)
    assert survey(Source(path, "a.jsonl", "jsonl")).long_texts is is_article
    assert not survey(Source(path, "a.jsonl", "jsonl", by_article=True)).long_texts


# --- rows that cannot be used ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{oops", r"malformed JSON \(Expecting property name .* at column 2\); expected an object a line"),
        ('"text"', r"expected a JSON object such as .*, found 'text'"),
        ('{"text": "It.", "x": NaN}', r"malformed JSON \(NaN is not JSON\)"),
        ("[" * 100_000, r"malformed JSON"),
        ('{"text": "Half \\ud83d."}', r"'text' holds half a surrogate pair"),
        ({"title": "Cranes"}, r"'text' is missing or empty"),
        ({"text": None}, r"'text' is missing or empty"),
        ({"text": " \t\u3000"}, r"'text' is blank; give the sentence, or remove the row"),
        ({"text": 3}, r"'text' is 3; expected a string"),
        ({"text": ["It is safe."]}, r"'text' is \['It is safe.'\]; expected a string"),
        ({"text": "It.", "title": {}}, r"'title' is \{\}; expected a string"),
        ({"text": "It.", "article_id": True}, r"'article_id' is True; expected a string or a whole number"),
        ({"text": "It.", "position": "first"}, r"'position' is 'first'; expected a whole number"),
        ({"text": "It.", "position": "9" * 5000}, r"'position' is '999+…; expected a whole number"),
    ],
)
def test_a_bad_row_is_reported_with_its_line_and_skipped(tmp_path: Path, row: object, problem: str) -> None:
    path = _jsonl(tmp_path / "a.jsonl", {"text": "First."}, "", row, {"text": "Last."})
    documents, [reported] = _read(path)
    assert [list(d.article.sentences) for d in documents] == [["First."], ["Last."]]
    assert re.match(rf"a\.jsonl:3: {problem}", reported)


def test_a_line_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    path = _text(tmp_path / "a.jsonl", b'{"text": "One."}\n{"text": "caf\xe9"}\n{"text": "Two."}\n')
    documents, problems = _read(path)
    assert len(documents) == 2
    assert problems == ["a.jsonl:2: not UTF-8 (byte 0xe9 at byte 14); save the file as UTF-8"]


def test_bad_csv_rows_are_reported_with_the_line_where_they_begin(tmp_path: Path) -> None:
    content = 'id,text\n1,"Two\nlines."\n2,too,many\n3\n\n4,"stray"quote\n5,caf\xe9\n6,"Good, too."\n'
    documents, problems = _read(_text(tmp_path / "a.csv", content.encode("latin-1")))
    assert [d.article.sentences[0] for d in documents] == ["Two\nlines.", "Good, too."]
    assert [problem.split(" ")[0] for problem in problems] == ["a.csv:4:", "a.csv:5:", "a.csv:7:", "a.csv:8:"]
    assert "3 cells, but the header has 2" in problems[0]
    assert "put quotes around a text, and double the quotes in it" in problems[2]


def test_a_quote_that_never_ends_is_reported(tmp_path: Path) -> None:
    documents, [problem] = _read(_text(tmp_path / "a.csv", 'text\nOne.\n"Two.\nThree.\n'))
    assert [d.article.sentences[0] for d in documents] == ["One."]
    assert problem.startswith("a.csv:3: malformed CSV (unexpected end of data)")


def test_parquet_strings_that_are_not_utf8_are_bad_rows(tmp_path: Path) -> None:
    bad = pa.array([b"One.", b"caf\xe9", b"Two."]).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    documents, problems = _read(tmp_path / "a.parquet")
    assert len(documents) == 2
    assert problems == ["a.parquet:2: not UTF-8 (byte 0xe9 at byte 4); save the file as UTF-8"]


def test_line_separators_in_json_strings_end_no_row(tmp_path: Path) -> None:
    text = "One\u2028two\u0085three\x0bfour."
    path = _text(tmp_path / "a.jsonl", json.dumps({"text": text}, ensure_ascii=False) + "\r\n")
    [document], _ = _read(path)
    assert document.article.sentences == [text]


def test_a_csv_cell_may_be_long(tmp_path: Path) -> None:
    [document], _ = _read(_text(tmp_path / "a.csv", f"text\n{'word ' * 200_000}\n"))
    assert len(document.article.sentences[0]) == 1_000_000


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, suffix: str) -> None:
    content = {".txt": "It is safe.", ".jsonl": '{"text": "It is safe."}\n', ".csv": "text\nIt is safe.\n"}[
        suffix
    ]
    [document], _ = _read(_text(tmp_path / f"a{suffix}", b"\xef\xbb\xbf" + content.encode()))
    assert document.article.sentences == ["It is safe."]


# --- files that cannot be used ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", b"", "the file is empty"),
        ("a.txt", b" \n\t\n", "the file has only blanks"),
        (
            "a.txt",
            b"It is safe.\nA caf\xe9.",
            r"line 2 is not UTF-8 \(byte 0xe9 at byte 18\); save the file as UTF-8",
        ),
        ("a.txt", "It is safe.".encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b"\n\n", "the file has no rows"),
        ("a.jsonl", b'{"sentence": "It is safe."}\n', "no column 'text'; found 'sentence'. Rename"),
        ("a.csv", b"text\n", "the file has no rows"),
        ("a.csv", b"id,body\n1,It.\n", "no column 'text'; found 'id', 'body'. Rename"),
        ("a.csv", b"text,text\nIt,It\n", "the header cannot be read: column 'text' appears twice"),
        (
            "a.csv",
            b"id;text\n1;It is safe.\n",
            "the header cannot be read: it is separated by ';', expected commas",
        ),
        ("a.parquet", b"It is safe.", "not a readable Parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_before_the_work(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    path = _text(tmp_path / name, content)
    with pytest.raises(SaysoError, match=problem):
        survey(Source(path, name, format_of(name)))


def test_every_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    good, empty = _text(tmp_path / "a.txt", BODY), _text(tmp_path / "b.txt", "")
    sources = [Source(path, path.name, "txt") for path in (good, empty, tmp_path / "c.txt")]
    with pytest.raises(
        SaysoError, match=r"^b\.txt: the file is empty.*\nc\.txt: cannot be read \(No such file"
    ):
        survey_all(sources)


@pytest.mark.parametrize(
    ("name", "found"), [("a.json", "unknown file type '.json'"), ("README", "no suffix")]
)
def test_an_unknown_suffix_is_an_error_that_names_the_known_ones(name: str, found: str) -> None:
    with pytest.raises(SaysoError, match=rf"{found}.*; expected \.txt, .*\.parquet, or name the format"):
        format_of(name)
