"""Labelled documents come out whole: rows read back as they were, and no text runs in the report."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterable, Mapping
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from serving.documents import Document
from serving.labels import LABELS, VOICES, Label
from serving.predictor import Article, Prediction
from serving.rendering import (
    ANSWERS,
    NAMES,
    Labelled,
    TableWriter,
    Tally,
    answer,
    new_writer,
    open_output,
    to_json,
    visible,
)

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NASTY = [
    "",
    "x",
    " \t\n",
    "He said 😀 é.",
    "قالت الوزارة إن الميناء آمن.",
    "\u202eesrever\u202c in the U.S.",
    "\x00\x1b[31mred\x1b]0;title\x07\x9b1A",
    '<script>alert("1")</script><img src=x onerror=alert(1)>',
    "\"><b title='x'>&amp;</b>-->{{ 7 * 7 }}{% raw %}",
    '=HYPERLINK("x"),\r\n\'a;b\rc',
    "line\u2028separator\u0085here",
]
texts = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)


def _prediction(label: Label = Label.OTHER, *, score: float = 0.7, truncated: bool = False) -> Prediction:
    rest = (1 - score) / 3
    return Prediction(
        label=label,
        score=score,
        scores={x: score if x is label else rest for x in LABELS},
        voice=VOICES[0],
        voice_scores=dict.fromkeys(VOICES, 0.2),
        doubt=True,
        doubt_score=0.625,
        truncated=truncated,
    )


def _labelled(rows: Iterable[Mapping[str, Any]], label: Label = Label.OTHER, **options: Any) -> Labelled:
    rows = [dict(row) for row in rows]
    article = Article([row["text"] for row in rows], options.pop("title", ""))
    document = Document(article, rows, options.pop("source", "a.jsonl"), len(rows), **options)
    return Labelled(document, [_prediction(label) for _ in rows])


def _written(
    file_format: str, *all_labelled: Labelled, columns: Mapping[str, set[Any]] | None = None
) -> bytes:
    stream, tally = io.BytesIO(), Tally()
    writer = new_writer(file_format, stream, columns or {"text": {str}}, "model-1")
    for labelled in all_labelled:
        writer.write(labelled)
        tally.add(labelled)
    writer.finish(tally)
    writer.close()
    return stream.getvalue()


# --- rows ------------------------------------------------------------------------------------------------


def test_an_answer_holds_everything_that_the_output_adds() -> None:
    columns = answer(_prediction(Label.EXPERT_SKEPTICISM, score=0.7))
    assert list(columns) == ["label", "score", "scores", "voice", "doubt", "doubt_score", "truncated"]
    assert columns["label"] == "expert_skepticism"
    assert columns["scores"] == {
        "official_claim": 0.1,
        "third_party_assessment": 0.1,
        "expert_skepticism": 0.7,
        "other": 0.1,
    }
    assert set(columns) <= set(ANSWERS)


@given(
    st.lists(st.fixed_dictionaries({"text": texts}, optional={"a": cells, "b": st.lists(cells)}), min_size=1)
)
def test_jsonl_reads_back_as_it_was(rows: list[dict[str, Any]]) -> None:
    lines = _written("jsonl", _labelled(rows)).decode().removesuffix("\n").split("\n")
    assert [json.loads(line) for line in lines] == [row | answer(_prediction()) for row in rows]


@given(st.lists(st.fixed_dictionaries({"text": texts, "a": texts}), min_size=1))
def test_csv_reads_back_as_it_was(rows: list[dict[str, str]]) -> None:
    content = _written("csv", _labelled(rows), columns={"text": {str}, "a": {str}}).decode()
    read = list(csv.DictReader(io.StringIO(content, newline=""), strict=True))
    assert [{"text": row["text"], "a": row["a"]} for row in read] == rows
    assert {row["score_other"] for row in read} == {"0.7"}
    assert list(read[0])[2:] == [name for name in ANSWERS if name != "scores"]


def test_csv_cells_that_are_no_text_are_readable() -> None:
    row = {
        "text": "It.",
        "n": 1,
        "x": 0.5,
        "yes": True,
        "none": None,
        "list": ["é", 1],
        "day": date(2024, 5, 1),
    }
    content = _written("csv", _labelled([row]), columns={name: set() for name in row}).decode()
    assert content.split("\r\n")[1].startswith('It.,1,0.5,true,,"[""é"", 1]",2024-05-01,other,0.7,')


_KINDS = st.sampled_from([(str, texts), (int, st.integers(-(2**63), 2**63 - 1)), (bool, st.booleans())])


@given(st.data())
@settings(deadline=None)
def test_parquet_keeps_values_and_their_types(data: st.DataObject) -> None:
    kind, values = data.draw(_KINDS)
    rows = data.draw(st.lists(st.fixed_dictionaries({"text": texts, "a": st.none() | values}), min_size=1))
    content = _written("parquet", _labelled(rows), columns={"text": {str}, "a": {kind}})
    read = pq.read_table(io.BytesIO(content)).to_pylist()
    assert [{"text": row["text"], "a": row["a"]} for row in read] == rows
    assert read[0]["label"] == "other"
    assert read[0]["score_other"] == 0.7


def test_parquet_columns_of_several_kinds_hold_json() -> None:
    rows = [
        {"text": "One.", "a": 1, "b": 1},
        {"text": "Two.", "a": "1", "b": 0.5},
        {"text": "Three.", "a": [2**70]},
    ]
    columns: dict[str, set[Any]] = {"text": {str}, "a": {int, str, object}, "b": {int, float, type(None)}}
    table = pq.read_table(io.BytesIO(_written("parquet", _labelled(rows), columns=columns)))
    assert table.column("a").to_pylist() == ["1", "1", f"[{2**70}]"]
    assert table.column("b").to_pylist() == [1.0, 0.5, None]


def test_parquet_columns_keep_their_arrow_types() -> None:
    columns: dict[str, set[Any]] = {
        "text": {pa.string()},
        "day": {pa.date32()},
        "tags": {pa.list_(pa.string())},
    }
    row = {"text": "One.", "day": date(2024, 5, 1), "tags": ["a", "b"]}
    table = pq.read_table(io.BytesIO(_written("parquet", _labelled([row]), columns=columns)))
    assert table.schema.field("day").type == pa.date32()
    assert table.select(["text", "day", "tags"]).to_pylist() == [row]


def test_parquet_is_written_in_row_groups() -> None:
    labelled = _labelled([{"text": "One."}] * 5000)
    groups = pq.ParquetFile(io.BytesIO(_written("parquet", *[labelled] * 5)))
    assert groups.metadata.num_row_groups == 3
    assert groups.metadata.num_rows == 25_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [float("nan"), 1.5], "b": {"c": float("inf")}}, '{"a": [null, 1.5], "b": {"c": null}}'),
        ([date(2024, 5, 1), b"\xff", "é"], '["2024-05-01", "/w==", "é"]'),
    ],
)
def test_values_that_json_does_not_know_become_ones_that_it_does(value: object, expected: str) -> None:
    assert to_json(value) == expected


# --- the table -------------------------------------------------------------------------------------------


def _table(*all_labelled: Labelled, **options: Any) -> str:
    stream, tally = io.StringIO(), Tally()
    writer = TableWriter(Console(file=stream, width=80, highlight=False, **options))
    for labelled in all_labelled:
        writer.write(labelled)
        tally.add(labelled)
    writer.finish(tally)
    return stream.getvalue()


def test_the_table_shows_title_label_score_sentence_and_the_counts() -> None:
    sentence = "The ministry said the harbour was safe and that every crane had passed inspection in March."
    rows = [{"article_id": "w1", "text": sentence}] * 2
    lines = _table(_labelled(rows, Label.OFFICIAL_CLAIM, title="Cranes")).splitlines()
    assert lines[0] == "Cranes  w1"
    assert lines[1].startswith("■ official claim          0.70  The ministry said")
    assert lines[2].startswith(" " * 32)
    assert "2 sentences in 1 article" in lines
    assert any(" ".join(line.split()).startswith("■ official claim 2 100% ━━━") for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_loose_sentences_share_one_heading() -> None:
    loose = [_labelled([{"text": text}], loose=True, source="s.csv") for text in ("One.", "Two.")]
    table = _table(*loose)
    assert table.count("s.csv") == 1
    assert "2 sentences\n" in table


@pytest.mark.parametrize(
    ("articles", "loose", "told"),
    [
        (1, 0, "2 sentences in 1 article"),
        (1500, 0, "3,000 sentences in 1,500 articles"),
        (0, 1, "1 sentence"),
        (1, 1, "3 sentences, 2 in 1 article and 1 alone"),
    ],
)
def test_the_tally_tells_articles_from_sentences_alone(articles: int, loose: int, told: str) -> None:
    tally = Tally()
    for _ in range(articles):
        tally.add(_labelled([{"text": "One."}, {"text": "Two."}]))
    for _ in range(loose):
        tally.add(_labelled([{"text": "Alone."}], loose=True))
    assert str(tally) == told


def test_a_cut_sentence_says_so() -> None:
    labelled = _labelled([{"text": "It is safe."}])
    assert "only its beginning was read" in _table(Labelled(labelled.document, [_prediction(truncated=True)]))


@given(st.lists(texts, min_size=1, max_size=5))
@settings(deadline=None)
def test_no_text_can_steer_the_terminal(sentences: list[str]) -> None:
    table = _table(
        _labelled([{"text": text} for text in sentences], title=sentences[0], source=sentences[-1])
    )
    assert not any(char in table for char in "\x00\x07\x0b\r\x1b\x7f\x9b\u202e\u2066")


def test_visible_text_is_on_one_line() -> None:
    assert visible(" a\u2028b\x1b[31m\tc\u202ed\n") == "a b\ufffd[31m cd"


# --- the report ------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Collects what a browser would see of a report."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.sentences: list[str] = []
        self.titles: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.attributes |= set(values)
        if tag == "span" and "title" in values:
            self.sentences.append("")
            self.titles.append(values["title"] or "")
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag == "span":
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self.sentences[-1] += data


_TAGS = {"html", "head", "meta", "title", "style", "body", "header", "main", "footer", "article", "h1", "h2"}
_TAGS |= {"table", "thead", "tbody", "tr", "th", "td", "span", "p", "bdi"}
_ATTRIBUTES = {"lang", "charset", "name", "content", "http-equiv", "class", "scope", "style", "title", "dir"}


@given(st.lists(texts, min_size=1, max_size=5), texts)
@example(NASTY, NASTY[7])
@settings(deadline=None)
def test_no_text_becomes_markup_in_the_report(sentences: list[str], title: str) -> None:
    rows = [{"article_id": title, "text": text, "paragraph": text} for text in sentences]
    loose = _labelled(rows[:1], loose=True, source=title)
    page = _Page(_written("html", _labelled(rows, title=title, source=title), loose).decode())
    assert page.sentences == [visible(text) for text in [*sentences, sentences[0]]]
    assert page.tags <= _TAGS
    assert page.attributes <= _ATTRIBUTES


def test_the_report_needs_nothing_else() -> None:
    html = _written("html", _labelled([{"text": "It is safe."}])).decode()
    assert html.lstrip().lower().startswith("<!doctype html>")
    assert not any(word in html for word in ("http:", "https:", "<script", "url(", "@import", "src="))
    assert "default-src 'none'" in html


@pytest.mark.parametrize("label", LABELS)
def test_the_report_tells_label_score_voice_and_doubt(label: Label) -> None:
    html = _written(
        "html", _labelled([{"text": "It is safe.", "paragraph": 1}], label, title="Cranes")
    ).decode()
    [title] = _Page(html).titles
    assert title == f"{NAMES[label]} 70% · voice: party · doubt (62%)"
    assert f'<span class="s {label}"' in html
    assert "<title>Cranes · Sayso</title>" in html
    assert "1 (100%)" in html
    assert "model-1" in html


def test_the_report_sets_paragraphs_and_spaces_as_the_text_has_them() -> None:
    rows = [
        {"text": "一。", "paragraph": 1, "start": 0, "end": 2},
        {"text": "二。", "paragraph": 1, "start": 2, "end": 4},
        {"text": "Three.", "paragraph": 1, "start": 5, "end": 11},
        {"text": "Four.", "paragraph": 2, "start": 13, "end": 18},
    ]
    html = _written("html", _labelled(rows)).decode()
    assert html.count('<p dir="auto">') == 2
    assert "一。</span><span" in html
    assert "二。</span> <span" in html


# --- where it goes ---------------------------------------------------------------------------------------


def test_an_output_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    path.chmod(0o640)
    with open_output(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["out.txt"]


def _fail_midway(path: Path, error: type[BaseException]) -> None:
    with open_output(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", ["old", None])
def test_a_failure_leaves_the_old_output(tmp_path: Path, error: type[BaseException], old: str | None) -> None:
    path = tmp_path / "out.txt"
    if old:
        path.write_text(old)
    with pytest.raises(error):
        _fail_midway(path, error)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ([old] if old else [])


def test_an_output_behind_a_link_keeps_the_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    with open_output(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_device_is_written_to_and_not_replaced() -> None:
    with open_output(Path(os.devnull)) as file:
        file.write(b"new")
    assert not Path(os.devnull).is_file()
