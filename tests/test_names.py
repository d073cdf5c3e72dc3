"""Names are swapped for names of their kind, and nothing else is touched."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from toy import ROOT

from serving.predictor import Article, Predictor
from training.cli import main
from training.corpus import read_articles
from training.names import KINDS, NameSwaps
from training.report import read_report

ARTICLES = read_articles([ROOT / "datasets" / "test.jsonl"])
SWAPS = NameSwaps(ARTICLES)


def swapped(*sentences: str, seed: int = 1, kinds: tuple[str, ...] = KINDS) -> list[str]:
    return list(SWAPS.swap(Article(sentences), Random(seed), kinds).sentences)


def test_a_country_keeps_its_adjective_and_capital_together_throughout() -> None:
    first, second, third = swapped(
        "A Russian envoy left Moscow for the United States.",
        "Russia denied it.",
        "MOSCOW - Two Russians fell.",
    )
    found = re.fullmatch(r"An? (\w+) envoy left (\w+) for (\w+)\.", first)
    assert found
    adjective, capital, _ = found.groups()
    assert not {"Russian", "Moscow", "America"} & set(found.groups())
    assert re.fullmatch(r"\w+ denied it\.", second)
    assert "Russia" not in second
    assert third.startswith(f"{capital.upper()} - Two ")
    assert adjective[:3] in third or not adjective.endswith(("n", "i"))


@pytest.mark.parametrize("seed", range(20))
def test_the_article_before_an_adjective_stays_right(seed: int) -> None:
    (text,) = swapped("He met an Iranian official and a French one.", seed=seed)
    for article, letter in re.findall(r"\b(an?) ([A-Z])", text):
        assert (article == "an") == (letter in "AEIOU"), text


def test_a_person_keeps_one_new_name_in_the_whole_article() -> None:
    first, second = swapped(
        "Velda Korrinsky spoke.", "Korrinsky denied it; Velda laughed.", kinds=("persons",)
    )
    name = first.removesuffix(" spoke.").split()
    assert len(name) == 2
    assert second == f"{name[1]} denied it; {name[0]} laughed."
    assert not {"Velda", "Korrinsky"} & set(name)


def test_groups_turn_into_groups_and_bodies_stay() -> None:
    (text,) = swapped("The Taliban told the UN and Reuters that the Foreign Ministry in Kabul lied.")
    assert "Taliban" not in text
    assert "Kabul" not in text
    assert "told the UN and Reuters that the Foreign Ministry in" in text


def test_an_article_that_names_most_groups_is_swapped_as_far_as_there_are_others() -> None:
    groups = ["Hamas", "Hezbollah", "Taliban", "Houthis", "Boko Haram", "Islamic State", "FARC", "PKK"]
    (text,) = swapped(f"They named {', '.join(groups)}.", kinds=("groups",))
    assert not [g for g in groups[:5] if g in text]
    assert text.endswith("FARC, PKK.")


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.integers())
def test_any_text_keeps_its_sentences_and_a_seed_its_names(sentences: list[str], seed: int) -> None:
    once = swapped(*sentences, seed=seed)
    assert len(once) == len(sentences)
    assert once == swapped(*sentences, seed=seed)
    for before, after in zip(sentences, once, strict=True):
        assert before == after or re.search(r"[A-ZÀ-Þ]", before)


def test_most_articles_of_the_corpus_have_a_name_to_swap() -> None:
    changed = 0
    for index, article in enumerate(ARTICLES):
        plain = Article([s.text for s in article.sentences], article.title)
        changed += SWAPS.swap(plain, Random(index)) != plain
    assert changed > 0.8 * len(ARTICLES)


def test_the_command_counts_changed_labels_and_adds_them_to_the_report(
    toy_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    CliRunner().invoke(main, ["export", "-m", str(toy_model), "-o", str(out)], catch_exceptions=False)
    rows = tmp_path / "articles.jsonl"
    rows.write_text((ROOT / "datasets" / "test.jsonl").read_text().splitlines()[0] + "\n")
    result = CliRunner().invoke(main, ["swap-names", "-m", str(out), "-d", str(rows), "--draws", "2"])
    assert result.exit_code == 0, result.output
    kinds = read_report(out)["name_swaps"]["kinds"]
    assert list(kinds) == [*KINDS, "all"]
    assert all(0 <= k["changed"] <= k["sentences"] == 2 for k in kinds.values())
    assert "labels changed" in (out / "report.md").read_text()
    assert Predictor.load(out)  # sealed again
