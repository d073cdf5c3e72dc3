"""Labelled files -> articles, and every error that such a file can have."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.labels import LABELS, VOICES, Label, Voice, label_of
from training.corpus import (
    COLUMNS,
    MAX_TEXT_CHARS,
    CorpusError,
    LabelledArticle,
    Sentence,
    check_file,
    checksum,
    count,
    read_articles,
)

FORMATS = ("jsonl", "csv", "parquet")
Row = dict[str, Any]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as a user's tool would, in the format of the path's suffix."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist([{c: row.get(c) for c in columns} for row in rows]), path)
    return path


def errors(path: Path) -> list[str]:
    """Return a file's errors without the path in front."""
    found = check_file(path).errors
    assert all(error.startswith(f"{path}:") for error in found)
    return [error.removeprefix(f"{path}:") for error in found]


def errors_of_rows(folder: Path, *rows: Row) -> list[str]:
    return errors(write(folder / "rows.jsonl", rows))


def sentence(text: str = "It rained.", **more: Any) -> Row:
    return {"text": text, "label": "other", **more}


# --- what a good file gives ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_of_one_article_are_put_in_order_of_position(tmp_path: Path, suffix: str) -> None:
    rows = [
        sentence(text, article_id="a", position=p, title="Rain")
        for text, p in [("Two.", 2), ("Nine.", 9), ("One.", 1)]
    ]
    (article,) = read_articles([write(tmp_path / f"rows.{suffix}", rows)])
    assert (article.id, article.title) == ("a", "Rain")
    assert [s.text for s in article.sentences] == ["One.", "Two.", "Nine."]


def test_sentences_without_position_keep_the_order_of_the_file_even_when_articles_are_mixed(
    tmp_path: Path,
) -> None:
    rows = [sentence(f"{i}", article_id="ab"[i % 2]) for i in range(4)]
    articles = read_articles([write(tmp_path / "rows.jsonl", rows)])
    assert [(a.id, [s.text for s in a.sentences]) for a in articles] == [("a", ["0", "2"]), ("b", ["1", "3"])]


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_without_an_article_are_articles_of_one(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"loose.{suffix}", [sentence("One."), sentence("Two.")])
    articles = read_articles([path])
    assert [[s.text for s in a.sentences] for a in articles] == [["One."], ["Two."]]
    assert len({a.id for a in articles}) == 2
    assert all(a.id.startswith(f"loose.{suffix}:") for a in articles)


def test_a_label_alone_leaves_voice_and_doubt_open(tmp_path: Path) -> None:
    (article,) = read_articles([write(tmp_path / "rows.csv", [sentence()])])
    assert article.sentences == (Sentence("It rained.", None, None, Label.OTHER),)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("voice", VOICES)
def test_a_missing_label_is_derived_from_voice_and_doubt(tmp_path: Path, suffix: str, voice: Voice) -> None:
    path = write(tmp_path / f"rows.{suffix}", [{"text": "Well.", "voice": voice.value, "doubt": False}])
    (article,) = read_articles([path])
    assert article.sentences == (Sentence("Well.", voice, False, label_of(voice, False)),)


@pytest.mark.parametrize("doubt", ["true", "TRUE", "1", "yes", True, 1, 1.0])
def test_doubt_is_read_as_people_write_it(tmp_path: Path, doubt: object) -> None:
    rows = [{"text": "No.", "voice": "expert", "doubt": doubt}]
    for suffix in FORMATS:
        (article,) = read_articles([write(tmp_path / f"rows.{suffix}", rows)])
        assert article.sentences[0].doubt is True


def test_sentences_that_need_context_may_be_marked(tmp_path: Path) -> None:
    rows = [
        sentence(article_id="a", needs_context="true"),
        sentence(article_id="a", needs_context=None),
        sentence(article_id="a"),
    ]
    (article,) = read_articles([write(tmp_path / "rows.jsonl", rows)])
    assert [s.needs_context for s in article.sentences] == [True, False, False]
    assert not article.meta
    bad = write(tmp_path / "bad.jsonl", [sentence(needs_context="maybe")])
    assert ["needs_context is 'maybe'; expected true or false" in e for e in check_file(bad).errors] == [True]


def test_columns_that_are_the_same_throughout_an_article_become_its_meta(tmp_path: Path) -> None:
    rows = [sentence(article_id="a", writer=3, source="wire", note=note, pair=None) for note in ("x", "y")]
    (article,) = read_articles([write(tmp_path / "rows.jsonl", rows)])
    assert article.meta == {"writer": "3", "source": "wire"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_article_ids_may_be_numbers_also_those_that_gaps_turned_into_floats(
    tmp_path: Path, suffix: str
) -> None:
    rows = [sentence("One.", article_id=7.0, position=1.0), sentence("Two.", article_id=None, position=None)]
    if suffix == "csv":
        rows[0] |= {"article_id": 7}
    first, second = read_articles([write(tmp_path / f"rows.{suffix}", rows)])
    assert first.id == "7"
    assert second.id != "7"


def test_a_byte_order_mark_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    jsonl, table = tmp_path / "rows.jsonl", tmp_path / "rows.csv"
    jsonl.write_bytes(
        b'\xef\xbb\xbf{"text": "One.", "label": "other"}\n\n\xef\xbb\xbf{"text": "Two.", "label": "other"}\n'
    )
    table.write_bytes(b"\xef\xbb\xbftext,label\r\n\r\nOne.,other\r\n\r\nTwo.,other\r\n")
    for path in (jsonl, table):
        assert [a.sentences[0].text for a in read_articles([path])] == ["One.", "Two."]


def test_articles_of_two_files_stay_apart_though_they_share_an_id(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.jsonl", [sentence(f"In {n}.", article_id="a")]) for n in ("one", "two")]
    articles = read_articles(paths)
    assert [a.id for a in articles] == ["a", f"{paths[1]}:a"]
    assert [a.sentences[0].text for a in articles] == ["In one.", "In two."]


def test_no_article_is_lost_when_an_id_looks_like_the_name_of_a_loose_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [sentence("One."), sentence("Two.", article_id="rows.jsonl:1")])
    articles = read_articles([path])
    assert [a.sentences[0].text for a in articles] == ["One.", "Two."]
    assert len({a.id for a in articles}) == 2


def test_no_files_are_no_articles() -> None:
    assert read_articles([]) == []


def test_the_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [sentence()]).rename(tmp_path / "ROWS.JSONL")
    assert len(read_articles([path])) == 1


# Carriage returns, quotes, bidi marks, astral characters: whatever is no lone surrogate and not blank.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)
NASTY = [
    "U.S.",
    "x",
    "🚀",
    '"a", he said',
    "שלום \u202eabc",
    "a\r\nb",
    "\ufeffx",
    "a\n\ufeffb",
    "\x00",
    "'",
    "1\u20282",
]


@st.composite
def sentences(draw: st.DrawFn) -> Sentence:
    text = draw(st.one_of(TEXTS, st.sampled_from(NASTY)))
    if draw(st.booleans()):
        return Sentence(text, None, None, draw(st.sampled_from(LABELS)))
    voice = draw(st.sampled_from(VOICES))
    doubt = voice is not Voice.NONE and draw(st.booleans())
    return Sentence(text, voice, doubt, label_of(voice, doubt))


@st.composite
def corpora(draw: st.DrawFn) -> list[LabelledArticle]:
    ids = draw(st.lists(TEXTS, min_size=1, max_size=4, unique=True))
    one_or_more = st.lists(sentences(), min_size=1, max_size=4).map(tuple)
    titles = st.one_of(st.just(""), TEXTS)
    return [LabelledArticle(i, draw(titles), draw(one_or_more), {"beat": draw(TEXTS)}) for i in ids]


def rows_of(articles: Sequence[LabelledArticle]) -> list[Row]:
    return [
        {
            "article_id": article.id,
            "position": position,
            "title": article.title,
            "text": s.text,
            "voice": s.voice and s.voice.value,
            "doubt": s.doubt,
            "label": s.label.value,
            **article.meta,
        }
        for article in articles
        for position, s in enumerate(article.sentences, start=1)
    ]


@given(articles=corpora())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_articles_survive_jsonl_csv_and_parquet(
    tmp_path_factory: pytest.TempPathFactory, articles: list[LabelledArticle]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    for suffix in FORMATS:
        assert read_articles([write(folder / f"rows.{suffix}", rows_of(articles))]) == articles


@given(articles=corpora(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_checksum_is_of_titles_texts_and_labels_and_nothing_else(
    articles: list[LabelledArticle], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(articles))
    renamed = [LabelledArticle(f"n{i}", a.title, a.sentences) for i, a in enumerate(shuffled)]
    assert checksum(renamed) == checksum(articles)
    assert checksum([*articles, LabelledArticle("new", "", articles[0].sentences[:1])]) != checksum(articles)


def test_the_checksum_changes_with_a_label_a_title_a_text_or_the_order_of_sentences() -> None:
    one, two = Sentence("One.", None, None, Label.OTHER), Sentence("Two.", None, None, Label.OTHER)
    other = Sentence("One.", None, None, Label.OFFICIAL_CLAIM)
    variants = [("", (one, two)), ("", (two, one)), ("T", (one, two)), ("", (other, two)), ("", (one,))]
    assert len({checksum([LabelledArticle("a", title, parts)]) for title, parts in variants}) == len(variants)


def test_counts_are_per_label_and_voice_in_their_order(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"text": "a", "voice": "expert", "doubt": True, "article_id": "a"},
        {"text": "b", "voice": "expert", "doubt": False, "article_id": "a"},
        {"text": "c", "label": "other"},
    ]
    counts = count(read_articles([write(tmp_path / "rows.jsonl", rows)]))
    assert (counts.articles, counts.sentences, counts.doubts, counts.unvoiced) == (2, 3, 1, 1)
    assert list(counts.labels.items()) == list(zip(LABELS, [0, 1, 1, 1], strict=True))
    assert list(counts.voices.items()) == list(zip(VOICES, [0, 0, 2, 0, 0], strict=True))


def test_sixty_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    rows = [sentence(f"Sentence {i}.", article_id=f"a{i // 20}", position=i % 20 + 1) for i in range(60_000)]
    path = write(tmp_path / "rows.jsonl", rows)
    start = time.process_time()
    assert len(read_articles([path])) == 3000
    assert time.process_time() - start < 10


# --- what a bad file gives -------------------------------------------------------------------------------

HALF_A_PAIR = "'text' holds half a surrogate pair (\\ud800 to \\udfff); write the whole character"
BAD_ROWS = [
    ({"text": None}, "text is missing; give the sentence, or remove the row"),
    ({"text": ""}, "text is missing; give the sentence, or remove the row"),
    ({"text": " \t\u00a0"}, "text is blank; give the sentence, or remove the row"),
    ({"text": 5}, "text is 5; expected a string"),
    ({"text": "half \ud83d"}, HALF_A_PAIR),
    (
        {"text": "x" * (MAX_TEXT_CHARS + 1)},
        "text has 20,001 characters, at most 20,000; put one sentence in a row",
    ),
    ({"label": None}, "label is missing; give a label, or both voice and doubt"),
    (
        {"label": "offical_claim"},
        "unknown label 'offical_claim'; expected one of official_claim, third_party_assessment, "
        "expert_skepticism, other; did you mean official_claim?",
    ),
    (
        {"voice": "offical", "doubt": False},
        "unknown voice 'offical'; expected one of party, outside, expert, private, none",
    ),
    (
        {"voice": "partys", "doubt": False},
        "unknown voice 'partys'; expected one of party, outside, expert, private, none; did you mean party?",
    ),
    (
        {"voice": ["party"], "doubt": False},
        "unknown voice ['party']; expected one of party, outside, expert, private, none; did you mean party?",
    ),
    ({"voice": "none", "doubt": "maybe"}, "doubt is 'maybe'; expected true or false"),
    ({"voice": "none", "doubt": 2}, "doubt is 2; expected true or false"),
    ({"voice": "none"}, "voice without doubt; give both or neither"),
    ({"doubt": False}, "doubt without voice; give both or neither"),
    (
        {"voice": "none", "doubt": True},
        "voice none with doubt; where nobody speaks nobody doubts: set doubt to false, or name the voice",
    ),
    (
        {"voice": "expert", "doubt": True},
        "label other contradicts voice expert with doubt, which make expert_skepticism; correct one of them",
    ),
    ({"position": 0, "article_id": "a"}, "position is 0; expected a whole number from 1"),
    ({"position": 1.5, "article_id": "a"}, "position is 1.5; expected a whole number from 1"),
    ({"position": True, "article_id": "a"}, "position is True; expected a whole number from 1"),
    ({"position": "first", "article_id": "a"}, "position is 'first'; expected a whole number from 1"),
    ({"article_id": [1]}, "article_id is [1]; expected a string or a whole number"),
    ({"title": 3}, "title is 3; expected a string"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ROWS, ids=[m[:50] for _, m in BAD_ROWS])
def test_a_row_that_breaks_a_rule_is_named_and_the_others_are_kept(
    tmp_path: Path, change: Row, message: str
) -> None:
    path = write(tmp_path / "rows.jsonl", [sentence("One."), sentence() | change, sentence("Three.")])
    assert errors(path) == [f"2: {message}"]
    assert [a.sentences[0].text for a in check_file(path).articles] == ["One.", "Three."]


def test_a_text_of_the_greatest_length_is_a_sentence(tmp_path: Path) -> None:
    assert errors_of_rows(tmp_path, sentence("x" * MAX_TEXT_CHARS)) == []


def test_every_error_of_a_row_and_of_every_row_is_reported_in_order_of_lines(tmp_path: Path) -> None:
    rows = [
        sentence(article_id="a", position=1),
        {"text": "", "label": "none", "doubt": "so"},
        sentence(article_id="a", position=1),
        sentence(label="claim"),
    ]
    found = errors_of_rows(tmp_path, *rows)
    assert [error.partition(":")[0] for error in found] == ["2", "2", "2", "3", "4"]


def test_a_position_that_is_taken_is_named_with_both_lines(tmp_path: Path) -> None:
    rows = [sentence(f"{i}", article_id="a", position=p) for i, p in enumerate([1, 3, 1])]
    assert errors_of_rows(tmp_path, *rows) == [
        "3: article 'a': position 1 is also in line 1; number its sentences 1, 2, 3, …"
    ]


def test_the_same_position_in_two_articles_and_in_loose_rows_is_no_error(tmp_path: Path) -> None:
    rows = [sentence(article_id=i, position=1) for i in ("a", "b", None, None)]
    assert errors_of_rows(tmp_path, *rows) == []


@pytest.mark.parametrize(
    ("first", "second", "words"), [(1, None, "missing here, given"), (None, 1, "given here, missing")]
)
def test_positions_for_some_sentences_only_are_refused(
    tmp_path: Path, first: int | None, second: int | None, words: str
) -> None:
    rows = [sentence(article_id="a", position=first), sentence(article_id="a", position=second)]
    assert errors_of_rows(tmp_path, *rows) == [
        f"2: article 'a': position {words} in line 1; number all its sentences or none"
    ]


def test_a_title_that_differs_inside_an_article_is_named_and_a_missing_one_is_not(tmp_path: Path) -> None:
    rows = [sentence(f"{i}", article_id="a", title=t) for i, t in enumerate([None, "Rain", "Snow", ""])]
    path = write(tmp_path / "rows.jsonl", rows)
    assert errors(path) == [
        "3: article 'a': title 'Snow' differs from 'Rain' in line 2; give all its sentences the same title"
    ]
    (article,) = check_file(path).articles
    assert (article.title, len(article.sentences)) == ("Rain", 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a", ', "malformed JSON ("),
        (b"[1, 2]", 'expected a JSON object such as {"text": "…"}, found [1, 2]'),
        (b"null", 'expected a JSON object such as {"text": "…"}, found None'),
        (
            b'{"text": "caf\xe9", "label": "other"}',
            "not UTF-8 (byte 0xe9 at byte 14); save the file as UTF-8",
        ),
        (b"[" * 100_000, "malformed JSON ("),
        (b'{"position": ' + b"9" * 5000 + b"}", "malformed JSON ("),
    ],
    ids=["cut off", "array", "null", "latin-1", "deep", "huge number"],
)
def test_a_line_that_is_no_json_object_is_named_and_the_others_are_kept(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(sentence()).encode() + b"\n" + line + b"\n" + json.dumps(sentence()).encode())
    (error,) = errors(path)
    assert error.startswith(f"2: {message}")
    assert len(check_file(path).articles) == 2


def test_a_csv_error_has_the_line_on_which_its_row_starts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        'text,label\n"Two\nlines.",other\n\n"Three\n\nlines.",claim\nLast.,oter\n', encoding="utf-8"
    )
    found = errors(path)
    assert [error.partition(": unknown label")[0] for error in found] == ["5", "8"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"a,b,other", "3 cells, but the header has 2; put quotes around a text that holds a comma"),
        (b"alone", "1 cells, but the header has 2; put quotes around a text that holds a comma"),
        (b"caf\xe9,other", "not UTF-8 (byte 0xe9 at byte 4); save the file as UTF-8"),
        (b'"said "no" twice",other', "malformed CSV ("),
        (
            b"x" * 200_000 + b",other",
            "text has 200,000 characters, at most 20,000; put one sentence in a row",
        ),
    ],
    ids=["too many", "too few", "latin-1", "quotes", "huge"],
)
def test_a_csv_row_that_cannot_be_read_is_named_and_the_others_are_kept(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\nOne.,other\n" + line + b"\nTwo.,other\n")
    (error,) = errors(path)
    assert error.startswith(f"3: {message}")
    assert len(check_file(path).articles) == 2


def test_a_quote_that_never_ends_is_named_where_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\nOne.,other\n"Two.,other\nThree.,other\n', encoding="utf-8")
    (error,) = errors(path)
    assert error.startswith("3: malformed CSV (unexpected end of data)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label,text\na,other,b\n", "1: {}: column 'text' appears twice; rename or remove one"),
        (b"t\xe9xt,label\na,other\n", "1: {}: not UTF-8 (byte 0xe9 at byte 2); save the file as UTF-8"),
        (b'\n"text\na,other\n', "2: {}: malformed CSV (unexpected end of data)"),
        (b"text;label\na;other\n", "1: {}: it is separated by ';', expected commas"),
    ],
    ids=["twice", "latin-1", "quote", "semicolons"],
)
def test_a_csv_header_that_cannot_be_used_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    (error,) = errors(path)
    assert error.startswith(message.format("the header cannot be read"))


def test_parquet_errors_have_the_number_of_the_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", [sentence(), sentence(label="claim"), sentence("")])
    assert [error.partition(": ")[0] for error in errors(path)] == ["2", "3"]


def test_text_in_parquet_that_is_not_utf8_is_named_by_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"One.", b"caf\xe9", b"Three."]).cast(pa.binary()).view(pa.string())
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": texts, "label": ["other"] * 3}), path)
    assert errors(path) == ["2: not UTF-8 (byte 0xe9 at byte 4); save the file as UTF-8"]
    assert len(check_file(path).articles) == 2


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"text,label\na,other\n"], ids=["empty", "cut off", "a CSV"]
)
def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    (error,) = errors(path)
    assert error.startswith(" not a readable Parquet file (")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_column_is_one_error_that_names_the_columns_found(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"rows.{suffix}", [{"sentence": "One.", "voice": "party"} for _ in range(3)])
    assert errors(path) == [
        "1: missing column 'text'; columns found: sentence, voice; rename or add it",
        "1: missing column 'label' (or both 'voice' and 'doubt'); columns found: sentence, voice; "
        "rename or add it",
    ]
    assert check_file(path).articles == []


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", b""), ("b.jsonl", b"\n \n"), ("c.csv", b""), ("d.csv", b"text,label\n")]
)
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert errors(path) == ["1: no rows; expected one sentence a row, with text and label"]


def test_a_parquet_file_without_rows_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), path)
    assert errors(path) == ["1: no rows; expected one sentence a row, with text and label"]


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "rows.json"])
def test_an_unknown_file_type_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}", encoding="utf-8")
    (error,) = errors(tmp_path / name)
    assert error.endswith("; expected one of .jsonl, .csv, .parquet")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"folder.{suffix}"
    folder.mkdir()
    assert errors(tmp_path / f"no.{suffix}") == [
        " cannot be read (No such file or directory); check the path"
    ]
    assert errors(folder) == [" cannot be read (Is a directory); check the path"]


def test_reading_raises_once_with_the_errors_of_all_files(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", [sentence()])
    bad = write(tmp_path / "bad.csv", [sentence(label="claim"), sentence(label="")])
    with pytest.raises(
        CorpusError, match=r"^3 errors in the labelled data\n.*bad\.csv:2: unknown label"
    ) as raised:
        read_articles([good, bad, tmp_path / "gone.csv"])
    assert [str(error).rpartition("/")[2].partition(" ")[0] for error in raised.value.errors] == [
        "bad.csv:2:",
        "bad.csv:3:",
        "gone.csv:",
    ]


def test_a_file_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [sentence()])
    with pytest.raises(CorpusError, match=r"^1 error .*\n.*given more than once; name each file once"):
        read_articles([path, path])


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    (error,) = errors_of_rows(tmp_path, sentence(label="x" * 100_000))
    assert len(error) < 250


def test_the_shipped_corpus_has_no_error() -> None:
    for split in ("train", "validation", "test"):
        path = Path(__file__).parents[1] / "datasets" / f"{split}.jsonl"
        assert check_file(path).errors == []
        assert list(json.loads(path.open(encoding="utf-8").readline()))[: len(COLUMNS)] == list(COLUMNS)
