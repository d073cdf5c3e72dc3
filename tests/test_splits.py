"""The written corpus's splits as shipped, and the functions that split."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from serving.errors import SaysoError
from serving.labels import LABELS, Label
from training.corpus import LabelledArticle, Sentence, count
from training.splits import SHARES, Splits, assign, read_written, split_articles, split_off, write_written

FOLDER = Path(__file__).parents[1] / "datasets"
SHORTEST_COMPARED_WORDS = 10
"""Shorter sentences are stock phrases ("What comes next?", "No one was hurt.") and recur by right."""

SHINGLES: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (4, 4), "min_df": 2}
NEAR_SENTENCE = 0.85
"""Cosine from which two sentences are near-duplicates: one word in ten or more changed stays above it."""

NEAR_ARTICLE = 0.5
"""Cosine of words; the two articles nearest to each other, on one imagined war, have 0.36."""


@pytest.fixture(scope="module")
def written() -> Splits:
    return read_written(FOLDER)


def by_name(splits: Splits) -> dict[str, list[LabelledArticle]]:
    return {name: getattr(splits, name) for name in SHARES}


def everything(splits: Splits) -> list[LabelledArticle]:
    return [article for articles in by_name(splits).values() for article in articles]


def article(name: str, *labels: Label, **meta: str) -> LabelledArticle:
    sentences = [Sentence(f"Sentence {i} of {name}.", None, None, label) for i, label in enumerate(labels)]
    return LabelledArticle(name, "", tuple(sentences), meta)


def test_the_shipped_files_are_what_the_assignment_gives(written: Splits) -> None:
    articles = everything(written)
    random.Random(0).shuffle(articles)
    split_of = assign(articles)
    for name, shipped in by_name(written).items():
        assert {a.id for a in shipped} == {a for a, split in split_of.items() if split == name}


def test_writing_the_shipped_rows_anew_gives_the_shipped_files(tmp_path: Path) -> None:
    whole = tmp_path / "all.jsonl"
    whole.write_bytes(b"".join((FOLDER / f"{name}.jsonl").read_bytes() for name in SHARES))
    write_written(whole, tmp_path / "anew")
    for name in SHARES:
        assert (tmp_path / "anew" / f"{name}.jsonl").read_bytes() == (FOLDER / f"{name}.jsonl").read_bytes()


@pytest.mark.parametrize("key", ["beat", "pair"])
def test_no_beat_and_no_pair_is_in_two_splits(written: Splits, key: str) -> None:
    kinds = [{a.meta[key] for a in articles if key in a.meta} for articles in by_name(written).values()]
    assert all(kinds)
    for one, other in combinations(kinds, 2):
        assert not one & other


def test_splits_have_their_share_of_articles_sentences_labels_and_doubt(written: Splits) -> None:
    whole = count(everything(written))
    for name, articles in by_name(written).items():
        part, share = count(articles), SHARES[name]
        assert part.articles / whole.articles == pytest.approx(share, rel=0.1)
        assert part.sentences / whole.sentences == pytest.approx(share, rel=0.1)
        for label in LABELS:
            assert part.labels[label] / whole.labels[label] == pytest.approx(share, rel=0.1)
        assert part.doubts / whole.doubts == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize("key", ["register", "writer"])
def test_every_register_and_every_writer_is_in_every_split_near_its_share(written: Splits, key: str) -> None:
    whole = Counter(a.meta[key] for a in everything(written))
    for name, articles in by_name(written).items():
        part = Counter(a.meta[key] for a in articles)
        for kind, total in whole.items():
            assert part[kind] > 0
            assert abs(part[kind] - total * SHARES[name]) <= 5, (name, kind)


def nearest_across(texts: list[str], splits: list[str], **vectors: Any) -> tuple[float, str, str]:
    """Return the highest cosine of two texts in different splits, and the two."""
    matrix = TfidfVectorizer(**vectors).fit_transform(texts)
    names = np.array(splits)
    found = [(0.0, "", "")]
    for name, others in (("test", ("train", "validation")), ("validation", ("train",))):
        rows, columns = np.flatnonzero(names == name), np.flatnonzero(np.isin(names, others))
        cosines = (matrix[rows] @ matrix[columns].T).tocoo()
        if cosines.nnz:
            top = cosines.data.argmax()
            pair = texts[rows[cosines.row[top]]], texts[columns[cosines.col[top]]]
            found.append((float(cosines.data[top]), *pair))
    return max(found)


def is_compared(text: str) -> bool:
    return len(text.split()) >= SHORTEST_COMPARED_WORDS


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def test_no_sentence_has_a_near_duplicate_in_another_split(written: Splits) -> None:
    sentences = [
        (plain(s.text), n) for n, articles in by_name(written).items() for a in articles for s in a.sentences
    ]
    compared = [(text, name) for text, name in sentences if is_compared(text)]
    texts, names = map(list, zip(*compared, strict=True))
    cosine, one, other = nearest_across(texts, names, **SHINGLES)
    assert cosine < NEAR_SENTENCE, (one, other)


def test_no_article_has_a_near_duplicate_in_another_split(written: Splits) -> None:
    whole = [
        (plain(" ".join([a.title, *(s.text for s in a.sentences)])), name)
        for name, articles in by_name(written).items()
        for a in articles
    ]
    texts, names = map(list, zip(*whole, strict=True))
    cosine, one, other = nearest_across(texts, names, stop_words="english", sublinear_tf=True)
    assert cosine < NEAR_ARTICLE, (one[:100], other[:100])


@pytest.mark.parametrize("which", range(5))
def test_the_search_for_near_duplicates_finds_a_sentence_of_which_one_word_was_changed(
    written: Splits, which: int
) -> None:
    texts = [text for text in (plain(s.text) for a in written.test for s in a.sentences) if is_compared(text)]
    original = texts[which * 100]
    words = original.split()
    changed = " ".join([*words[:4], "otherwise", *words[5:]])
    found = nearest_across([*texts, changed], ["train"] * len(texts) + ["test"], **SHINGLES)
    assert found[0] >= NEAR_SENTENCE
    assert found[1:] == (changed, original)


def test_articles_that_share_a_beat_or_a_pair_go_together() -> None:
    articles = [article(f"a{i}", Label.OTHER, beat=f"beat {i // 2}", pair=f"pair {i % 5}") for i in range(10)]
    assert len(set(assign(articles).values())) == 1


def test_articles_without_a_beat_are_dealt_one_by_one() -> None:
    articles = [article(f"a{i}", LABELS[i % 4]) for i in range(100)]
    splits = split_articles(articles)
    assert [len(part) for part in by_name(splits).values()] == [80, 10, 10]
    assert splits.train == [a for a in articles if a in splits.train]


def test_nothing_is_assigned_to_no_articles() -> None:
    assert assign([]) == {}


def test_splitting_off_keeps_every_article_once_and_in_order() -> None:
    articles = [article(f"a{i}", LABELS[i % 4]) for i in range(40)]
    rest, off = split_off(articles, share=0.25, seed=1)
    assert len(off) == 10
    assert sorted(rest + off, key=articles.index) == articles
    assert off == sorted(off, key=articles.index)


def test_splitting_off_takes_each_labels_share() -> None:
    common = [article(f"c{i}", Label.OTHER, Label.OTHER, Label.EXPERT_SKEPTICISM) for i in range(80)]
    rare = [article(f"r{i}", Label.EXPERT_SKEPTICISM) for i in range(20)]
    _, off = split_off(common + rare, share=0.1, seed=1)
    assert sum(a.id.startswith("r") for a in off) == 2


def test_splitting_off_goes_by_id_and_seed_and_not_by_order() -> None:
    articles = [article(f"a{i}", LABELS[i % 4]) for i in range(40)]
    ids = {a.id for a in split_off(articles, share=0.25, seed=1)[1]}
    assert {a.id for a in split_off(articles[::-1], share=0.25, seed=1)[1]} == ids
    assert {a.id for a in split_off(articles, share=0.25, seed=2)[1]} != ids


def test_a_small_share_splits_off_at_least_one_article() -> None:
    rest, off = split_off([article("a", Label.OTHER), article("b", Label.OTHER)], share=0.01, seed=1)
    assert (len(rest), len(off)) == (1, 1)


@pytest.mark.parametrize(("articles", "share"), [(0, 0.1), (1, 0.1), (5, 0.0), (5, 1.0), (5, -1.0)])
def test_a_split_that_leaves_one_side_empty_is_refused(articles: int, share: float) -> None:
    with pytest.raises(
        SaysoError, match=r"cannot split .* expected a share between 0 and 1, and two articles"
    ):
        split_off([article(f"a{i}", Label.OTHER) for i in range(articles)], share=share, seed=1)


def test_a_folder_without_the_corpus_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        SaysoError, match=r"train\.jsonl.* not found; run in the repository, or pass the folder"
    ):
        read_written(tmp_path)


def test_the_corpus_of_the_working_directory_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "datasets").mkdir()
    for name in SHARES:
        (tmp_path / "datasets" / f"{name}.jsonl").write_text(f'{{"text": "In {name}.", "label": "other"}}\n')
    monkeypatch.chdir(tmp_path)
    assert [a.sentences[0].text for a in everything(read_written())] == [f"In {name}." for name in SHARES]


def test_the_corpus_of_the_repository_is_found_from_elsewhere(
    written: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_written() == written
