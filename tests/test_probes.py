"""Probes find what is given away, and nothing where nothing is."""

from __future__ import annotations

from random import Random

import pytest

from serving.labels import LABELS, Label, Voice
from training.corpus import LabelledArticle, Sentence
from training.probes import SLIVERS, probe, tell_apart

WORDS = ["rain", "bridge", "minister", "wheat", "harbour", "verdict", "choir", "tariff"]


def article(number: int, sentences: list[tuple[str, Label]]) -> LabelledArticle:
    rows = tuple(Sentence(text, Voice.NONE, False, label) for text, label in sentences)
    return LabelledArticle(f"a{number}", "", rows)


def random_text(random: Random) -> str:
    return " ".join(random.choices(WORDS, k=8))


def test_labels_that_follow_the_position_are_found_by_position_alone() -> None:
    random = Random(1)
    articles = [article(n, [(random_text(random), label) for label in LABELS]) for n in range(80)]
    found = probe(articles[:60], articles[60:])
    assert found["position in the article"][0] > 0.95
    assert found["whole sentences"][0] < 0.5


def test_labels_that_follow_the_verb_are_found_by_cue_verbs_alone() -> None:
    random = Random(2)
    verbs = dict(zip(LABELS, ("claimed", "found", "doubted", "added"), strict=True))
    drawn = [random.choices(LABELS, k=4) for _ in range(80)]
    articles = [
        article(n, [(f"{random_text(random)} {verbs[x]} {random_text(random)}", x) for x in row])
        for n, row in enumerate(drawn)
    ]
    found = probe(articles[:60], articles[60:])
    assert found["cue verbs"][0] > 0.95
    assert found["content words masked"][0] < 0.5
    assert found["names"][0] < 0.5


@pytest.mark.parametrize(
    ("sliver", "seen"),
    [
        ("position in the article", "from_start_0 from_end_0"),
        ("cue verbs", "said"),
        ("names", "Ana Kolar Zagreb University"),
        ("content words masked", " qq We xx it qq , xx xx xx of xx xx"),
    ],
)
def test_a_sliver_shows_no_more_than_it_says(sliver: str, seen: str) -> None:
    text = "“We measured it”, said Ana Kolar of Zagreb University"
    assert list(SLIVERS[sliver](article(0, [(text, Label.OTHER)]))) == [seen]


def test_articles_of_one_kind_are_not_told_apart_and_of_two_kinds_are() -> None:
    random = Random(3)
    one, same = ([article(n, [(random_text(random), Label.OTHER)] * 5) for n in range(60)] for _ in range(2))
    other = [article(n, [(random_text(random) + " however", Label.OTHER)] * 5) for n in range(60)]
    assert abs(tell_apart(one, same) - 0.5) < 0.2
    assert tell_apart(one, other) > 0.95
