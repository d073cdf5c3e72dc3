"""Windows read every sentence once, within their size, and where it has most context."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from serving.artifact import DEFAULT_MODEL
from serving.windows import Article, Limits, Windows, assign, collate, plan

LENGTHS = st.lists(st.integers(1, 60), max_size=60)
TEXT = st.text(max_size=80)


@pytest.fixture(scope="module")
def windows() -> Windows:
    return Windows(Tokenizer.from_file(str(DEFAULT_MODEL / "tokenizer.json")), Limits(64, 2, 8))


@given(LENGTHS, st.integers(60, 200), st.integers(0, 4))
def test_blocks_cover_all_sentences_in_order_within_the_capacity(
    lengths: list[int], capacity: int, overlap: int
) -> None:
    blocks = plan(lengths, capacity, overlap=overlap)
    assert sorted({i for block in blocks for i in block}) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in block) <= capacity for block in blocks)
    assert all(a.start < b.start and a.stop < b.stop for a, b in pairwise(blocks))
    assert all(a.stop - b.start <= overlap for a, b in pairwise(blocks))


@given(LENGTHS, st.integers(60, 200), st.integers(0, 4))
def test_every_sentence_is_read_once_in_a_block_that_holds_it(
    lengths: list[int], capacity: int, overlap: int
) -> None:
    blocks = plan(lengths, capacity, overlap=overlap)
    reads = assign(lengths, blocks)
    if blocks:
        assert [i for read in reads for i in read] == list(range(len(lengths)))
        assert all(
            not r or (b.start <= r.start and r.stop <= b.stop) for r, b in zip(reads, blocks, strict=True)
        )


def test_a_shared_sentence_is_read_where_it_has_more_context() -> None:
    lengths = [10] * 8
    blocks = [range(0, 5), range(3, 8)]
    assert assign(lengths, blocks) == [range(0, 4), range(4, 8)]


def test_an_article_that_fits_is_one_window(windows: Windows) -> None:
    cut = windows.cut(windows.encode(Article(["He agreed.", "She did not."], "A row")))
    assert len(cut) == 1
    assert cut[0].read == range(0, 2)
    assert cut[0].token_ids[0] == windows.cls
    assert [cut[0].token_ids[end - 1] for _, end in cut[0].spans] == [windows.sep, windows.sep]


def test_later_windows_begin_with_the_articles_beginning_which_is_not_read_there() -> None:
    windows = Windows(Tokenizer.from_file(str(DEFAULT_MODEL / "tokenizer.json")), Limits(64, 2, 8, 6))
    sentences = [
        "Oslo sent two diplomats home on Monday.",
        *["The ministry said that it was a mistake."] * 12,
    ]
    article = windows.encode(Article(sentences, "A row"))
    first, *later = windows.cut(article)
    title = [windows.cls, *article.title, windows.sep]
    lede = [*article.sentences[0][:6], windows.sep]
    assert first.token_ids[: first.spans[0][0]] == title
    assert len(later) > 1
    assert all(window.token_ids[: window.spans[0][0]] == title + lede for window in later)


def test_the_lede_is_only_what_lies_before_the_window() -> None:
    windows = Windows(Tokenizer.from_file(str(DEFAULT_MODEL / "tokenizer.json")), Limits(64, 2, 8, 6))
    article = windows.encode(Article(["No.", "He went."]))
    window = windows.window(article, range(1, 2))
    assert window.token_ids == [
        windows.cls,
        *article.sentences[0],
        windows.sep,
        *article.sentences[1],
        windows.sep,
    ]


@given(st.lists(TEXT, min_size=1, max_size=12), TEXT, st.integers(0, 20))
def test_any_article_is_cut_into_windows_of_the_right_size(
    sentences: list[str], title: str, lede: int
) -> None:
    windows = Windows(Tokenizer.from_file(str(DEFAULT_MODEL / "tokenizer.json")), Limits(64, 2, 8, lede))
    cut = windows.cut(windows.encode(Article(sentences, title)))
    assert [i for window in cut for i in window.read] == list(range(len(sentences)))
    assert all(window.length <= 64 for window in cut)
    assert all(begin < end for window in cut for begin, end in window.spans)


def test_a_sentence_longer_than_the_window_is_truncated_and_says_so(windows: Windows) -> None:
    cut = windows.cut(windows.encode(Article(["word " * 5000, "Short."])))
    assert [flag for window in cut for flag in window.truncated[: len(window.read)]] == [True, False]


def test_collating_averages_over_each_sentences_own_tokens(windows: Windows) -> None:
    cut = windows.cut(windows.encode(Article(["One two three.", "Four."])))
    longer = windows.cut(windows.encode(Article(["A much longer sentence than the other ones are."])))
    batch = collate(cut + longer)
    assert batch.input_ids.shape == batch.attention_mask.shape == (2, max(cut[0].length, longer[0].length))
    assert batch.pooling.sum(-1).tolist() == [[pytest.approx(1), pytest.approx(1)], [pytest.approx(1), 0]]
    assert not np.any(batch.pooling * (1 - batch.attention_mask[:, None]))


def test_limits_without_room_for_a_sentence_are_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        Limits(max_tokens=32, title_tokens=30)
    with pytest.raises(ValueError, match="no room"):
        Limits(max_tokens=64, title_tokens=20, lede_tokens=20)
