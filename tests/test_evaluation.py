"""Evaluation reads articles as the service would, and the report says what was measured."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.errors import SaysoError
from serving.labels import LABELS, VOICES, Label, Voice, label_of
from serving.predictor import Article, Prediction
from training import report
from training.baselines import Majority, PredictorRow, compare
from training.corpus import LabelledArticle, Sentence
from training.evaluation import Evaluation, context_gain, evaluate, gain
from training.metrics import macro_f1
from training.report import dataset_name, read_report, write_comparison, write_report


class FakePredictor:
    """Reads the answer off a sentence's first word; read alone, every sentence that says "she" is other."""

    def __init__(self) -> None:
        self.calls: list[list[Article]] = []

    def predict(self, articles: Sequence[Article]) -> list[list[Prediction]]:
        """Return a prediction for every sentence."""
        self.calls.append(list(articles))
        return [
            [self._answer(text, len(article.sentences) == 1) for text in article.sentences]
            for article in articles
        ]

    def _answer(self, text: str, alone: bool) -> Prediction:
        voice = Voice(text.split()[0]) if not (alone and "she" in text) else Voice.NONE
        doubt = "doubtful" in text
        label = label_of(voice, doubt)
        scores = {x: 0.7 if x is label else 0.1 for x in LABELS}
        voice_scores = {x: 0.8 if x is voice else 0.05 for x in VOICES}
        return Prediction(label, 0.7, scores, voice, voice_scores, doubt, float(doubt), "cut" in text)


def sentence(text: str, voice: Voice | None, doubt: bool | None, label: Label | None = None) -> Sentence:
    """A sentence with its right answer."""
    return Sentence(text, voice, doubt, label or label_of(voice or Voice.NONE, bool(doubt)))


def corpus(articles: int = 30, needy: Sequence[str] = (), **meta: str) -> list[LabelledArticle]:
    """Articles of five sentences: four right in context, one of them only there, and one always wrong.

    Sentences with a word of ``needy`` are marked: they need context.
    """
    sentences = (
        sentence("party speaks", Voice.PARTY, False),
        sentence("expert is doubtful", Voice.EXPERT, True),
        sentence("outside she finds", Voice.OUTSIDE, False),
        sentence("none passes, cut", Voice.NONE, False),
        sentence("private remembers", Voice.OUTSIDE, False),
    )
    sentences = tuple(
        dataclasses.replace(s, needs_context=any(word in s.text for word in needy)) for s in sentences
    )
    return [LabelledArticle(f"a{i}", "A title", sentences, meta) for i in range(articles)]


@pytest.fixture
def evaluation() -> Evaluation:
    """The fake predictor in context."""
    return evaluate(FakePredictor(), corpus(register="wire | terse"))


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else; only the tests of plots do it."""
    monkeypatch.setattr(report, "_draw", lambda *_: {})


def test_evaluation_figures_by_hand(evaluation: Evaluation) -> None:
    assert (evaluation.articles, evaluation.sentences, evaluation.truncated) == (30, 150, 30)
    assert evaluation.confusion.tolist() == [[30, 0, 0, 0], [0, 30, 0, 30], [0, 0, 30, 0], [0, 0, 0, 30]]
    assert evaluation.macro_f1 == pytest.approx((1 + 2 / 3 + 1 + 2 / 3) / 4)
    assert evaluation.voice_macro_f1 == pytest.approx((1 + 2 / 3 + 1 + 0 + 1) / 5)
    assert evaluation.doubt_f1 == 1
    assert evaluation.ece == pytest.approx(0.1)
    assert evaluation.brier == pytest.approx(0.8 * 0.12 + 0.2 * (0.49 + 0.81 + 0.02))
    assert evaluation.sentences_per_second > 0


def test_every_article_counts_alike_so_the_interval_is_a_point(evaluation: Evaluation) -> None:
    interval = evaluation.macro_f1_interval
    assert interval.low == pytest.approx(evaluation.macro_f1)
    assert interval.high == pytest.approx(evaluation.macro_f1)


def test_in_context_an_article_is_read_whole_with_its_title() -> None:
    predictor = FakePredictor()
    evaluate(predictor, corpus(2))
    assert [(len(a.sentences), a.title) for a in predictor.calls[0]] == [(5, "A title")] * 2


def test_alone_every_sentence_is_an_article_of_one_without_title() -> None:
    predictor = FakePredictor()
    alone = evaluate(predictor, corpus(2), alone=True)
    assert [(len(a.sentences), a.title) for call in predictor.calls for a in call] == [(1, "")] * 10
    assert alone.alone
    assert alone.confusion[1].tolist() == [0, 0, 0, 4]


def test_large_data_is_read_in_portions_and_told_to_the_progress_bar() -> None:
    predictor, seen = FakePredictor(), list[int]()
    whole = evaluate(predictor, corpus(500), progress=seen.append)
    assert len(predictor.calls) == len(seen) > 1
    assert sum(seen) == whole.sentences == 2500


def test_gain_is_the_difference_with_an_interval(evaluation: Evaluation) -> None:
    alone = evaluate(FakePredictor(), corpus(), alone=True)
    found = gain(evaluation, alone)
    assert found.macro_f1 == pytest.approx(evaluation.macro_f1 - alone.macro_f1)
    assert found.interval.low <= found.macro_f1 + 1e-9
    assert found.macro_f1 - 1e-9 <= found.interval.high


def test_where_context_is_needed_its_gain_in_accuracy_is_told(tmp_path: Path) -> None:
    marked = corpus(needy=("she", "private"))
    both = [evaluate(FakePredictor(), marked, alone=alone) for alone in (False, True)]
    found = context_gain(*both)
    assert found is not None
    assert (found.sentences, found.in_context, found.alone) == (60, 0.5, 0.0)
    assert found.interval.low <= found.gain == 0.5 <= found.interval.high
    write_report({"dev": both[0]}, tmp_path, alone={"dev": both[1]})
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Of the 60 sentences that need context 50.0% are right in context and 0.0% alone: +0.500" in text


def test_where_no_sentence_is_marked_nothing_is_said_of_needed_context(evaluation: Evaluation) -> None:
    assert context_gain(evaluation, evaluate(FakePredictor(), corpus(), alone=True)) is None


def test_gain_over_other_data_is_refused(evaluation: Evaluation) -> None:
    with pytest.raises(SaysoError, match="different data"):
        gain(evaluation, evaluate(FakePredictor(), corpus(29)))


def test_rows_with_only_a_label_have_no_voice_or_doubt_figure() -> None:
    rows = (sentence("party speaks", None, None, Label.OFFICIAL_CLAIM),)
    found = evaluate(FakePredictor(), [LabelledArticle("a", "", rows)])
    assert found.voice_macro_f1 is None
    assert found.doubt_f1 is None
    assert found.macro_f1 == pytest.approx(1 / 4)


def test_groups_are_given_from_a_hundred_sentences_on() -> None:
    articles = corpus(20, register="wire", beat="a vote") + corpus(19, register="tabloid", beat="a vote")
    groups = evaluate(FakePredictor(), articles).groups
    assert list(groups) == ["register", "beat"]
    assert list(groups["register"]) == ["wire"]
    wire = groups["register"]["wire"]
    assert (wire.articles, wire.sentences, wire.labels) == (20, 100, 4)
    assert wire.macro_f1 == pytest.approx(5 / 6)


def test_a_groups_macro_f1_is_over_the_labels_that_occur() -> None:
    rows = (sentence("party speaks", Voice.PARTY, False), sentence("none passes", Voice.NONE, False))
    articles = [LabelledArticle(str(i), "", rows, {"source": "s"}) for i in range(60)]
    group = evaluate(FakePredictor(), articles).groups["source"]["s"]
    assert (group.labels, group.macro_f1) == (2, 1)


def test_no_sentence_is_an_error_that_says_so() -> None:
    with pytest.raises(SaysoError, match="no labelled sentence to evaluate on"):
        evaluate(FakePredictor(), [])


def test_scores_give_the_macro_f1_that_is_reported(evaluation: Evaluation) -> None:
    answers = [LABELS[i] for i in evaluation.scores.argmax(axis=1)]
    assert evaluation.macro_f1 == pytest.approx(macro_f1([LABELS[i] for i in evaluation.gold_index], answers))


def figures_of(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON value with the key that it stands under."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from figures_of(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from figures_of(item, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def shown(key: str, value: float) -> str:
    """The number as report.md writes it."""
    if key in ("sentences_per_second", "training_seconds"):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


@pytest.mark.usefixtures("no_plots")
def test_report_md_mentions_every_figure_of_report_json(evaluation: Evaluation, tmp_path: Path) -> None:
    alone = evaluate(FakePredictor(), corpus(register="wire | terse"), alone=True)
    write_report({"test": evaluation}, tmp_path, alone={"test": alone}, about={"test": "Written."})
    rows = compare([Majority(), PredictorRow("fake", FakePredictor(), training_seconds=61.25)],
                   {"test": corpus()}, train=corpus(3), validation=corpus(1))  # fmt: skip
    write_comparison(rows.as_dict(), tmp_path)
    written = read_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    figures = [(k, v) for k, v in figures_of(written) if k != "version"]
    assert len(figures) > 80
    for key, value in figures:
        assert re.search(rf"(?<![\d.]){re.escape(shown(key, value))}(?![\d])", text), (key, value)
    for words in (
        "Written.",
        "in context",
        "each sentence alone",
        "wire \\| terse",
        "Context changes",
        "fake",
    ):
        assert words in text


def test_every_plot_is_linked_and_is_a_picture(evaluation: Evaluation, tmp_path: Path) -> None:
    files = write_report({"Real news": evaluation}, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert linked == [
        "confusion-real-news.png",
        "reliability-real-news.png",
        "precision-recall-real-news.png",
        "risk-coverage-real-news.png",
    ]
    assert sorted(f.name for f in files) == sorted([*linked, "report.json", "report.md"])
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(f.name for f in files)
    for name in linked:
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 500
            pixels = np.asarray(picture.convert("L"))
            assert len(np.unique(pixels)) > 20
            edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
            assert all((edge == 255).all() for edge in edges), "something is cut off at the margin"


@pytest.mark.usefixtures("no_plots")
def test_a_second_data_set_adds_its_section_and_keeps_the_first(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    write_report({"test": evaluation}, tmp_path, model="1.0")
    first = read_report(tmp_path)["datasets"]["test"]
    write_report({"dev": evaluate(FakePredictor(), corpus(7))}, tmp_path, model="1.0")
    written = read_report(tmp_path)
    assert list(written["datasets"]) == ["test", "dev"]
    assert written["datasets"]["test"] == first
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.index("## test") < text.index("## dev")
    assert "150 sentences" in text
    assert "35 sentences" in text


@pytest.mark.usefixtures("no_plots")
def test_evaluating_again_replaces_the_whole_section(evaluation: Evaluation, tmp_path: Path) -> None:
    alone = evaluate(FakePredictor(), corpus(), alone=True)
    write_report({"test": evaluation}, tmp_path, alone={"test": alone})
    write_report({"test": evaluation}, tmp_path)
    assert "alone" not in read_report(tmp_path)["datasets"]["test"]
    assert "Context changes" not in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_plots")
def test_figures_of_two_models_are_never_mixed(evaluation: Evaluation, tmp_path: Path) -> None:
    write_report({"test": evaluation}, tmp_path, model="1.0")
    write_report({"dev": evaluation}, tmp_path, model="2.0")
    written = read_report(tmp_path)
    assert (written["model"], list(written["datasets"])) == ("2.0", ["dev"])


@pytest.mark.usefixtures("no_plots")
def test_alone_figures_may_stand_by_themselves(tmp_path: Path) -> None:
    write_report({"test": evaluate(FakePredictor(), corpus(), alone=True)}, tmp_path)
    assert "in_context" not in read_report(tmp_path)["datasets"]["test"]
    assert "each sentence alone" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_label_that_never_occurs_spoils_no_plot(tmp_path: Path) -> None:
    rows = (sentence("none passes", None, None, Label.OTHER),)
    write_report({"one": evaluate(FakePredictor(), [LabelledArticle("a", "", rows)])}, tmp_path)
    assert "| doubt F1 | n/a |" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_plots")
def test_a_report_holds_no_absolute_path(evaluation: Evaluation, tmp_path: Path) -> None:
    write_report({dataset_name(str(tmp_path / "dev.jsonl")): evaluation}, tmp_path)
    for name in ("report.json", "report.md"):
        assert str(tmp_path) not in (tmp_path / name).read_text(encoding="utf-8")
    assert list(read_report(tmp_path)["datasets"]) == ["dev"]


def test_a_damaged_report_is_named_and_left_alone(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(SaysoError, match=r"report\.json: damaged"):
        write_report({"test": evaluation}, tmp_path)
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == "{"
    (tmp_path / "report.json").write_text(json.dumps({"version": 99}), encoding="utf-8")
    with pytest.raises(SaysoError, match="not a report that this version reads"):
        read_report(tmp_path)


def test_a_missing_report_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(SaysoError, match="sayso-train evaluate"):
        read_report(tmp_path)


def test_alone_without_its_data_set_is_refused(evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(SaysoError, match="dev: not evaluated"):
        write_report({"test": evaluation}, tmp_path, alone={"dev": evaluation})
    with pytest.raises(SaysoError, match="alone=True"):
        write_report({"test": evaluation}, tmp_path, alone={"test": evaluation})


def test_an_evaluation_cannot_be_changed(evaluation: Evaluation) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluation.macro_f1 = 1.0  # type: ignore[misc]
