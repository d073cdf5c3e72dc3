"""The embedded default through the one inference path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.artifact import DEFAULT_MODEL, ArtifactError, read_manifest
from serving.labels import LABELS, VOICES
from serving.predictor import Article, Predictor

NASTY = [
    "",
    " ",
    "a",
    "🙂🙂",
    "\x00\x07",
    "مرحبا بالعالم",
    "‮abc",
    "U.S.",
    "word " * 5000,
    "x" * 100_000,
    "\ud800",
]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load()


def test_the_story_that_it_began_with(predictor: Predictor) -> None:
    sentences = [
        "The Taliban said on Sunday that they had captured 600 militants of the Islamic State group in a month.",
        "A foreign ministry spokesman in Berlin noted that the figure could not be verified.",
        "Security analysts said the number was implausible, since the group has never had that many fighters there.",
        "The road to the province was closed on Monday.",
    ]
    labels = [p.label.value for p in predictor.predict([Article(sentences, "Taliban claim 600 captures")])[0]]
    assert labels == ["official_claim", "third_party_assessment", "expert_skepticism", "other"]


def test_scores_are_probabilities_and_the_label_is_the_highest(predictor: Predictor) -> None:
    for prediction in predictor.predict([Article(["The ministry denied it.", "It rained."])])[0]:
        assert list(prediction.scores) == list(LABELS)
        assert list(prediction.voice_scores) == list(VOICES)
        assert sum(prediction.scores.values()) == pytest.approx(1)
        assert sum(prediction.voice_scores.values()) == pytest.approx(1)
        assert prediction.score == max(prediction.scores.values()) == prediction.scores[prediction.label]
        assert prediction.doubt == (prediction.doubt_score >= 0.5)


ARTICLES = st.lists(
    st.builds(Article, st.lists(st.text(max_size=60), min_size=1, max_size=6), st.text(max_size=20)),
    max_size=5,
)


@settings(max_examples=20, deadline=None)
@given(ARTICLES)
def test_an_answer_does_not_depend_on_what_else_is_answered(articles: list[Article]) -> None:
    predictor = Predictor.load()
    assert predictor.predict(articles) == [predictor.predict([article])[0] for article in articles]


@pytest.mark.parametrize("text", NASTY, ids=repr)
def test_any_text_gets_an_answer(predictor: Predictor, text: str) -> None:
    (alone,) = predictor.predict([Article([text])])
    assert len(alone) == 1
    assert alone[0].truncated == (len(text) > 20_000)
    assert len(predictor.predict([Article([text, "He said so."], text[:200])])[0]) == 2


def test_an_article_without_sentences_has_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.predict([Article([])]) == [[]]


def test_context_reaches_the_answer(predictor: Predictor) -> None:
    text = "It would be the third such operation this year, he said."
    party = Article(["The interior minister spoke on state television about the arrests.", text])
    expert = Article(["A professor of security studies doubted that the arrests had happened.", text])
    scores = [predictor.predict([a])[0][1].scores for a in (party, expert)]
    assert scores[0]["official_claim"] > scores[1]["official_claim"]


def test_a_long_article_reads_every_sentence_once(predictor: Predictor) -> None:
    sentences = [f"Sentence number {i} of a long report, said the ministry." for i in range(200)]
    assert len(predictor.prepare(Article(sentences))) > 5
    assert len(predictor.predict([Article(sentences)])[0]) == 200


def test_one_changed_byte_in_the_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEFAULT_MODEL, model)
    network = bytearray((model / "model.int8.onnx").read_bytes())
    network[len(network) // 2] ^= 1
    (model / "model.int8.onnx").write_bytes(bytes(network))
    with pytest.raises(ArtifactError, match=r"model\.int8\.onnx: differs from its checksum"):
        Predictor.load(model)


def test_a_precision_that_a_model_does_not_have_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"has no model\.onnx"):
        Predictor.load(precision="fp32")


def test_the_embedded_default_says_where_it_comes_from() -> None:
    manifest = read_manifest(DEFAULT_MODEL)
    assert manifest.data["train"]["sentences"] > 0
    assert (DEFAULT_MODEL / "README.md").is_file()
    assert (DEFAULT_MODEL / "report.md").is_file()
