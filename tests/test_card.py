"""The model card says what the reports say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.artifact import DEFAULT_MODEL, read_manifest
from serving.predictor import Predictor
from training.cli import main
from training.report import read_report


@pytest.fixture
def model(toy_model: Path, tmp_path: Path) -> Path:
    """The toy model's serving part, which a test may change."""
    result = CliRunner().invoke(main, ["export", "-m", str(toy_model), "-o", str(tmp_path / "served")])
    assert result.exit_code == 0, result.output
    return tmp_path / "served"


def test_a_card_has_the_figures_of_the_report(model: Path) -> None:
    result = CliRunner().invoke(main, ["card", "-m", str(model)])
    assert result.exit_code == 0, result.output
    card = (model / "README.md").read_text()
    for name, section in read_report(model)["datasets"].items():
        (row,) = (line for line in card.splitlines() if line.startswith(f"| this model, {name} |"))
        for reading in ("in_context", "alone"):
            assert f"{section[reading]['macro_f1']:.3f}" in row
        for figures in section["in_context"]["labels"].values():
            assert f"{figures['f1']:.3f}" in row
    assert read_manifest(model).model_version in card
    assert "language models" in card
    assert Predictor.load(model)  # sealed again


def test_another_model_has_rows_in_the_card_and_a_comparison_its_table(model: Path, toy_model: Path) -> None:
    report = json.loads((model / "report.json").read_text())
    interval = {"macro_f1": 0.123, "macro_f1_interval": {"low": 0.1, "high": 0.2}}
    rows = [{"name": "majority", "datasets": {"test": interval}, "training_seconds": 0.0}]
    report["comparison"] = {"about": "Learnt from a toy.", "datasets": ["test"], "rows": rows}
    (model / "report.json").write_text(json.dumps(report))
    CliRunner().invoke(main, ["card", "-m", str(model), "--beside", str(toy_model)], catch_exceptions=False)
    card = (model / "README.md").read_text()
    assert "| toy, test |" in card
    assert "| majority | 0.123 [0.100, 0.200] |" in card


def test_the_default_has_the_card_that_its_reports_make(tmp_path: Path) -> None:
    """Only the rows of other models, whose reports are not shipped, are its own."""
    card = (DEFAULT_MODEL / "README.md").read_text()
    CliRunner().invoke(main, ["export", "-m", str(DEFAULT_MODEL), "-o", str(tmp_path / DEFAULT_MODEL.name)])
    CliRunner().invoke(main, ["card", "-m", str(tmp_path / DEFAULT_MODEL.name)], catch_exceptions=False)
    missing = set((tmp_path / DEFAULT_MODEL.name / "README.md").read_text().splitlines()) - set(
        card.splitlines()
    )
    assert not missing


def test_a_model_without_a_report_is_told_to_be_evaluated(model: Path) -> None:
    (model / "report.json").unlink()
    result = CliRunner().invoke(main, ["card", "-m", str(model)])
    assert result.exit_code == 2
    assert "sayso-train evaluate" in result.output
