"""Baselines learn a toy corpus, and the comparison treats them and trained models alike."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from rich.console import Console

from serving.errors import SaysoError
from serving.labels import LABELS, VOICES, Label, Voice
from serving.predictor import Article, Prediction
from training import metrics
from training.baselines import (
    Baseline,
    Comparison,
    FrozenEncoderLogistic,
    Majority,
    PredictorRow,
    TfidfLogistic,
    cheap_baselines,
    compare,
)
from training.corpus import LabelledArticle, Sentence

_TEMPLATES = {
    Label.OFFICIAL_CLAIM: "The ministry said on {} that its {} would be safe.",
    Label.THIRD_PARTY_ASSESSMENT: "Auditors found on {} that the {} had cost twice as much.",
    Label.EXPERT_SKEPTICISM: "Analysts doubted on {} whether the {} could ever work.",
    Label.OTHER: "Rain fell on {} over the {} near the river.",
}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_THINGS = ("bridge", "dam", "vaccine", "railway", "harbour", "tax")


def toy(articles: int, seed: int) -> list[LabelledArticle]:
    """Articles of eight sentences whose cue words give the label away."""
    rng = random.Random(seed)

    def one(label: Label) -> Sentence:
        text = _TEMPLATES[label].format(rng.choice(_DAYS), rng.choice(_THINGS))
        return Sentence(text, None, None, label)

    return [
        LabelledArticle(f"{seed}-{i}", "", tuple(one(rng.choice(LABELS)) for _ in range(8)))
        for i in range(articles)
    ]


def macro_f1(articles: Sequence[LabelledArticle], predicted: Sequence[Sequence[Label]]) -> float:
    gold = [sentence.label for article in articles for sentence in article.sentences]
    return metrics.macro_f1(gold, [label for row in predicted for label in row])


@pytest.mark.parametrize("make", [TfidfLogistic, FrozenEncoderLogistic])
def test_a_baseline_learns_a_toy_corpus(make: Callable[[], Baseline]) -> None:
    baseline, unseen = make(), toy(6, seed=3)
    baseline.fit(toy(10, seed=1), toy(3, seed=2))
    predicted = baseline.predict(unseen)
    assert [len(row) for row in predicted] == [8] * 6
    assert all(isinstance(label, Label) for row in predicted for label in row)
    assert macro_f1(unseen, predicted) > 0.95
    assert baseline.predict([]) == []


def test_majority_is_the_commonest_label() -> None:
    majority = Majority()
    rows = tuple(Sentence("x", None, None, label) for label in (LABELS[2], LABELS[0], LABELS[2]))
    majority.fit([LabelledArticle("a", "", rows)], [])
    assert majority.predict(toy(2, seed=1)) == [[LABELS[2]] * 8] * 2


def test_a_baseline_gives_the_same_answers_twice() -> None:
    train, validation, unseen = toy(8, seed=1), toy(2, seed=2), toy(4, seed=3)
    answers = []
    for _ in range(2):
        baseline = TfidfLogistic(seed=5)
        baseline.fit(train, validation)
        answers.append(
            (baseline.c, baseline.classifier.predict_proba(baseline.features(["The tax"])).tolist())
        )
        assert baseline.predict(unseen) == baseline.predict(unseen)
    assert answers[0] == answers[1]


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch() -> None:
    encoder = FrozenEncoderLogistic()
    texts = ["", "One.", "A much longer sentence about a bridge, a dam and a railway. " * 30, "Two words"]
    together = encoder.features(texts)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    one_by_one = np.concatenate([encoder.features([text]) for text in texts])
    assert one_by_one == pytest.approx(together, abs=1e-4)


def test_without_validation_the_middle_c_is_taken() -> None:
    baseline = TfidfLogistic()
    baseline.fit(toy(4, seed=1), [])
    assert baseline.c == TfidfLogistic.grid[len(TfidfLogistic.grid) // 2]


def test_training_data_of_one_label_is_an_error_that_says_so() -> None:
    rows = (Sentence("Rain fell.", None, None, Label.OTHER),)
    with pytest.raises(SaysoError, match=r"TF-IDF.*found 1 label"):
        TfidfLogistic().fit([LabelledArticle("a", "", rows)], [])
    with pytest.raises(SaysoError, match="no labelled sentence to train on"):
        Majority().fit([], [])


def test_texts_without_a_single_word_are_an_error_that_says_so() -> None:
    rows = (Sentence("…", None, None, Label.OTHER), Sentence("!", None, None, Label.OFFICIAL_CLAIM))
    with pytest.raises(SaysoError, match="no words"):
        TfidfLogistic().fit([LabelledArticle("a", "", rows)], [])


class Oracle:
    """Knows every answer in context, and says other when it sees a sentence alone."""

    def predict(self, articles: Sequence[Article]) -> list[list[Prediction]]:
        """Return a prediction for every sentence."""
        return [
            [self._answer(text, len(article.sentences) > 1) for text in article.sentences]
            for article in articles
        ]

    def _answer(self, text: str, in_context: bool) -> Prediction:
        first = text.split()[0]
        right = next(label for label, template in _TEMPLATES.items() if template.split()[0] == first)
        label = right if in_context else Label.OTHER
        voices = dict.fromkeys(VOICES, 0.2)
        return Prediction(
            label, 1.0, {x: float(x is label) for x in LABELS}, Voice.NONE, voices, False, 0.0, False
        )


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Two baselines and a model, in context and alone, on two data sets."""
    rows = [
        Majority(),
        TfidfLogistic(),
        PredictorRow("model, alone", Oracle(), alone=True),
        PredictorRow("model", Oracle(), training_seconds=1234.5),
    ]
    data = {"validation": toy(3, seed=2), "test": toy(5, seed=3)}
    return compare(rows, data, train=toy(8, seed=1), validation=data["validation"])


def test_compare_gives_every_row_on_every_data_set(comparison: Comparison) -> None:
    assert [row.name for row in comparison.rows] == [
        "majority", "TF-IDF + logistic regression", "model, alone", "model",
    ]  # fmt: skip
    for row in comparison.rows:
        assert list(row.datasets) == ["validation", "test"]
        for score in row.datasets.values():
            assert score.macro_f1_interval.low <= score.macro_f1 + 1e-9
            assert score.macro_f1 <= score.macro_f1_interval.high + 1e-9
    in_context, alone = comparison.rows[3].datasets["test"], comparison.rows[2].datasets["test"]
    assert in_context.macro_f1 == 1
    assert alone.macro_f1 < 0.2


def test_compare_tells_training_time_where_it_is_known(comparison: Comparison) -> None:
    seconds = [row.training_seconds for row in comparison.rows]
    assert seconds[0] is not None
    assert seconds[2] is None
    assert seconds[3] == 1234.5


def test_the_table_says_the_same_in_a_terminal_and_in_markdown(comparison: Comparison) -> None:
    console = Console(file=io.StringIO(), width=160)
    console.print(comparison.table())
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for row in comparison.rows:
        for score in row.datasets.values():
            low, high = score.macro_f1_interval.low, score.macro_f1_interval.high
            cell = f"{score.macro_f1:.3f} [{low:.3f}, {high:.3f}]"
            assert cell in printed
            assert cell in comparison.markdown()
    assert "1,234.5 s" in printed
    assert "64" in comparison.markdown()  # training sentences


def test_compare_says_a_line_per_row_and_takes_rows_one_by_one() -> None:
    said: list[str] = []

    def rows() -> object:
        yield Majority()
        assert len(said) == 1
        yield PredictorRow("model", Oracle())

    compare(rows(), {"test": toy(2, seed=3)}, train=toy(2, seed=1), validation=[], say=said.append)  # type: ignore[arg-type]
    assert [line.split(" · ")[0] for line in said] == ["majority", "model"]


def test_comparing_on_nothing_is_an_error_that_names_it() -> None:
    with pytest.raises(SaysoError, match="test: no labelled sentence to compare on"):
        compare([Majority()], {"test": []}, train=toy(1, seed=1), validation=[])


def test_the_cheap_baselines_are_the_three() -> None:
    assert [type(b) for b in cheap_baselines()] == [Majority, TfidfLogistic, FrozenEncoderLogistic]
