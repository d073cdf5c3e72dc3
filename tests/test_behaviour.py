"""The embedded default on the hand-written cases, and how cases are judged."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from toy import ROOT

from serving.artifact import DEFAULT_MODEL
from serving.errors import SaysoError
from serving.labels import Label
from serving.predictor import Predictor
from training.behaviour import CASES, Behaviour, Case, read_cases, run
from training.cli import main
from training.corpus import read_articles
from training.report import read_report

SUITE = read_cases(ROOT / "datasets" / CASES)
CAPABILITIES = list(dict.fromkeys(case.capability for case in SUITE))
# Another processor rounds otherwise, and a case on the edge falls to the other side.
ROUNDING = 2


@pytest.fixture(scope="module")
def behaviour() -> Behaviour:
    return run(Predictor.load(), SUITE)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_default_fails_no_more_cases_than_its_report_says(behaviour: Behaviour, capability: str) -> None:
    reported = read_report(DEFAULT_MODEL)["behaviour"][capability]
    assert behaviour.cases[capability] == reported["cases"]
    failed = [f.case.note for f in behaviour.failures if f.case.capability == capability]
    assert len(failed) <= reported["failed"] + ROUNDING, "\n".join(failed)


def test_the_suite_is_as_large_as_the_card_says_and_no_case_stands_twice() -> None:
    counts = Counter(case.capability for case in SUITE)
    assert len(counts) >= 12
    assert counts.total() >= 300
    assert counts["role-reversal"] >= 100
    assert len({case.articles for case in SUITE}) == len(SUITE)


def test_no_sentence_that_is_judged_was_trained_on() -> None:
    targets = {t.sentences[t.target - 1] for case in SUITE for t in case.articles}
    written = {s.text for a in read_articles([ROOT / "datasets" / "train.jsonl"]) for s in a.sentences}
    assert not targets & written


def case(kind: str, *labels: str) -> dict[str, object]:
    articles = [
        {"title": "T", "sentences": ["A.", f"B {i}."], "target": 2, "label": x} for i, x in enumerate(labels)
    ]
    return {"capability": "c", "kind": kind, "note": "n", "articles": articles}


def test_a_case_passes_by_its_kind() -> None:
    claim, other = Label.OFFICIAL_CLAIM, Label.OTHER
    label = Case.model_validate(case("label", "other"))
    assert label.passes([other])
    assert not label.passes([claim])
    same = Case.model_validate(case("invariance", "other", "other"))
    assert same.passes([claim, claim])  # wrong, but not because of what differs
    assert not same.passes([claim, other])
    turn = Case.model_validate(case("direction", "official_claim", "other"))
    assert turn.passes([claim, other])
    assert not turn.passes([claim, claim])


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (case("label", "other", "other"), "no case of kind label"),
        (case("invariance", "other"), "no case of kind invariance"),
        (case("invariance", "other", "official_claim"), "no case of kind invariance"),
        (case("direction", "other", "other"), "no case of kind direction"),
        (case("label", "party"), "articles.0.label"),
        (case("label", "other") | {"kinds": 1}, "kinds"),
        (
            case("label") | {"articles": [{"title": "", "sentences": ["A."], "target": 2, "label": "other"}]},
            "target 2 of 1 sentences",
        ),
    ],
)
def test_a_malformed_case_is_named_with_its_line(tmp_path: Path, broken: object, problem: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps(case("label", "other")) + "\n" + json.dumps(broken) + "\n")
    with pytest.raises(SaysoError, match=r"cases\.jsonl:2: ") as found:
        read_cases(path)
    assert problem in str(found.value)


def test_the_command_shows_failures_and_adds_them_to_the_report(toy_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    impossible = case("direction", "official_claim", "other")
    for article in impossible["articles"]:  # type: ignore[attr-defined]
        article["sentences"] = ["A.", "The same."]
    path.write_text(json.dumps(impossible) + "\n")
    out = tmp_path / "model"
    CliRunner().invoke(main, ["export", "-m", str(toy_model), "-o", str(out)], catch_exceptions=False)
    result = CliRunner().invoke(main, ["behaviour", "-m", str(out), "--cases", str(path), "--show"])
    assert result.exit_code == 0, result.output
    assert "The same." in result.output
    reported = read_report(out)["behaviour"]["c"]
    assert (reported["cases"], reported["failed"]) == (1, 1)
    assert reported["examples"][0]["sentence"] == "The same."
    assert "| c | 1 | 1 | 100% |" in (out / "report.md").read_text()
    assert Predictor.load(out)  # sealed again
