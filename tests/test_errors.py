"""Errors drawn into a sheet, sorted by a person, and counted."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from toy import ROOT

from serving.artifact import DEFAULT_MODEL, read_manifest
from training.cli import main
from training.corpus import read_articles
from training.report import read_report

TEST = ROOT / "datasets" / "test.jsonl"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["errors", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("errors") / "errors.csv"
    code, output = run("-d", "test", "--count", 12, "-o", path)
    assert code == 0, output
    assert "fill the column `kind`" in output
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fill(path: Path, source: Path, kinds: list[str], **other: str) -> Path:
    filled = [row | other | {"kind": kind} for row, kind in zip(rows(source), kinds, strict=True)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, filled[0])
        writer.writeheader()
        writer.writerows(filled)
    return path


def test_a_sheet_holds_errors_in_their_articles(sheet: Path) -> None:
    articles = {article.id: article for article in read_articles([TEST])}
    assert len(rows(sheet)) == 12
    for row in rows(sheet):
        sentences = articles[row["article_id"]].sentences
        index = int(row["position"]) - 1
        assert row["sentence"] == sentences[index].text
        assert row["label"] == sentences[index].label.value != row["answer"]
        assert index == 0 or row["before"].endswith(sentences[index - 1].text)
        assert index + 1 == len(sentences) or row["after"] == sentences[index + 1].text
        assert row["kind"] == ""


def test_the_same_errors_are_drawn_again(sheet: Path, tmp_path: Path) -> None:
    run("-d", TEST, "--count", 12, "-o", tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == sheet.read_bytes()


def test_a_filled_sheet_becomes_a_table_of_the_report(sheet: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEFAULT_MODEL, model)
    filled = fill(tmp_path / "filled.csv", sheet, ["context"] * 6 + ["role"] * 4 + [" doubt "] * 2)
    code, output = run("-m", model, "--read", filled)
    assert code == 0, output
    assert "| context: " in output
    assert "| 6 | 50% |" in output
    kinds = read_report(model)["errors"]["kinds"]
    assert {kind: count for kind, count in kinds.items() if count} == {"context": 6, "role": 4, "doubt": 2}
    report = (model / "report.md").read_text(encoding="utf-8")
    assert "## Errors by kind" in report
    assert "12 errors on test" in report
    assert not any(row["sentence"] in report for row in rows(sheet))
    assert read_manifest(model).model_version == read_manifest(DEFAULT_MODEL).model_version


@pytest.mark.parametrize(
    ("kinds", "other", "message"),
    [
        (["role"] * 11 + [""], {}, r"filled.csv:\d+: no kind; write one of context"),
        (["rolle"] + ["role"] * 11, {}, "filled.csv:2: kind 'rolle'; write one of context"),
        (["role"] * 12, {"model": "another"}, "of model another"),
        (["role"] * 12, {"model": "", "data": ""}, "of model "),
    ],
)
def test_a_sheet_that_cannot_be_read_changes_nothing(
    sheet: Path, tmp_path: Path, kinds: list[str], other: dict[str, str], message: str
) -> None:
    filled = fill(tmp_path / "filled.csv", sheet, kinds, **other)
    before = (DEFAULT_MODEL / "report.json").read_bytes()
    code, output = run("--read", filled)
    assert code == 2
    assert re.search(message, output)
    assert (DEFAULT_MODEL / "report.json").read_bytes() == before


def test_a_new_sheet_needs_data_and_a_place(tmp_path: Path) -> None:
    code, output = run("-d", "test")
    assert code == 2
    assert "--output" in output
