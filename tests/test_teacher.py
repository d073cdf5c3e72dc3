"""A teacher's scores: read, checked, and learnt from."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from toy import toy_rows, write_jsonl

from serving.cli import main as sayso
from serving.errors import SaysoError
from serving.labels import LABELS
from serving.predictor import Predictor
from training.cli import main as sayso_train
from training.config import load_config
from training.corpus import read_articles
from training.data import read_data
from training.recipe import fit
from training.teacher import Teacher, read_teacher

SURE = {label.value: 0.97 if label is LABELS[0] else 0.01 for label in LABELS}


def scored(article: str, sentences: int = 14, **other: object) -> list[dict[str, object]]:
    row = {"text": "Seen.", "title": "Of them", "label": "official_claim", "scores": SURE}
    return [{"article_id": article, "position": i + 1} | row | other for i in range(sentences)]


def test_scores_find_their_sentences_and_the_others_have_none(toy_data: Path, tmp_path: Path) -> None:
    articles = read_articles([toy_data / "train.jsonl"])
    teacher = read_teacher([write_jsonl(tmp_path / "scores.jsonl", scored("train-0") + scored("elsewhere"))])
    soft = teacher.soft_targets(articles)
    assert [array.shape for array in soft] == [(len(a.sentences), 4) for a in articles]
    for article, array in zip(articles, soft, strict=True):
        expected = np.tile(list(SURE.values()), (14, 1)) if article.id == "train-0" else 0
        assert array == pytest.approx(expected)
    assert not any(array.any() for array in Teacher().soft_targets(articles))


def test_articles_that_only_the_teacher_labelled_are_trained_on(
    toy_data: Path, toy_recipe: list[str], tmp_path: Path
) -> None:
    rows = [row for name in ("train-0", "validation-1", "test-1", "new") for row in scored(name)]
    scores = write_jsonl(tmp_path / "scores.jsonl", rows)
    plain = read_data(load_config(None, toy_recipe))
    data = read_data(load_config(None, [*toy_recipe, f"teacher_scores=[{scores}]"]))
    assert (data.validation, data.test) == (plain.validation, plain.test)
    *labelled, new = data.train
    assert labelled == plain.train
    assert (new.id, new.title, len(new.sentences)) == ("new", "Of them", 14)
    assert {(s.text, s.voice, s.doubt, s.label) for s in new.sentences} == {("Seen.", None, None, LABELS[0])}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (scored("a", position=0), r"scores.jsonl:2: position: .* expected what `sayso label` writes"),
        (scored("a", position=3), "scores.jsonl:2: position 3 of a after 0; expected all its sentences"),
        (scored("b", 1), "scores.jsonl:2: position 1 of b after 1; expected all its sentences"),
        (scored("a", scores=SURE | {"other": 0.9}), "scores.jsonl:2: scores: expected one for each label"),
        (scored("a", scores={"other": 1.0}), "scores.jsonl:2: scores: expected one for each label"),
        (scored("a", scores={"rumour": 1.0}), r"scores.jsonl:2: scores\.rumour"),
        ([{"text": "no scores"}], "scores.jsonl:2: article_id: Field required"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(SaysoError, match=message):
        read_teacher([write_jsonl(tmp_path / "scores.jsonl", scored("b", 1) + rows)])


def test_scores_of_other_sentences_are_refused(toy_data: Path, tmp_path: Path) -> None:
    teacher = read_teacher([write_jsonl(tmp_path / "scores.jsonl", scored("train-0", 9))])
    with pytest.raises(SaysoError, match="train-0 has 9 sentences there and 14 where it is trained on"):
        teacher.soft_targets(read_articles([toy_data / "train.jsonl"]))
    with pytest.raises(SaysoError, match="cannot be read"):
        read_teacher([tmp_path / "missing.jsonl"])


def test_a_student_follows_its_teacher_where_the_labels_are_useless(
    toy_data: Path, toy_recipe: list[str], tmp_path: Path
) -> None:
    """Every label says "other"; only the scores tell what a sentence is."""
    rows = toy_rows("train", 12)
    useless = [row | {"voice": "none", "doubt": False, "label": "other"} for row in rows]
    for name in ("validation", "test"):
        (tmp_path / f"{name}.jsonl").write_bytes((toy_data / f"{name}.jsonl").read_bytes())
    write_jsonl(tmp_path / "train.jsonl", useless)
    told = [row | {"scores": {x.value: float(x.value == row["label"]) for x in LABELS}} for row in rows]
    scores = write_jsonl(tmp_path / "scores.jsonl", told)
    recipe = [*toy_recipe, f"data={tmp_path}", "epochs=6", "teacher_weight=30", f"teacher_scores=[{scores}]"]
    fit(load_config(None, recipe), tmp_path / "student")
    articles = read_articles([toy_data / "test.jsonl"])
    answers = Predictor.load(tmp_path / "student").predict([a.unlabelled() for a in articles])
    labels = [s.label for a in articles for s in a.sentences]
    right = sum(p.label == label for p, label in zip(chain.from_iterable(answers), labels, strict=True))
    assert right / len(labels) > 0.6


def test_from_the_teachers_answers_to_the_student_by_command(
    toy_data: Path, toy_model: Path, toy_recipe: list[str], tmp_path: Path
) -> None:
    scores, student = tmp_path / "scores.jsonl", tmp_path / "student"
    label = ["label", str(toy_data / "train.jsonl"), "--model", str(toy_model), "-o", str(scores)]
    CliRunner().invoke(sayso, label, catch_exceptions=False)
    settings = [part for value in toy_recipe for part in ("--set", value)]
    arguments = ["fit", *settings, "--teacher-scores", str(scores), "-o", str(student)]
    result = CliRunner().invoke(sayso_train, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads((student / "report.json").read_text())["datasets"]["test"]
    assert f"- {scores}" in (student / "config.yaml").read_text()
