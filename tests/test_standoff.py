"""Labels without texts, joined with the texts again."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from serving.labels import Label, Voice
from training.cli import main
from training.corpus import read_articles

TEXT = "The ministry denied\nit. “Unlikely”, a scholar said. Rain fell."
LABELS = {
    "article_id": "a1",
    "sha256": hashlib.sha256(TEXT.encode()).hexdigest(),
    "sentences": [[0, 23, "P-"], [24, 51, "E-"], [52, 62, "N"]],
}


def joined(folder: Path, labels: Any = LABELS, text: str = TEXT, name: str = "texts.jsonl.gz") -> Result:
    line = json.dumps({"article_id": "a1", "title": "A title", "text": text}) + "\n"
    (folder / name).write_bytes(gzip.compress(line.encode()) if name.endswith("gz") else line.encode())
    (folder / "labels.jsonl").write_text(labels if isinstance(labels, str) else json.dumps(labels))
    arguments = [str(folder / "labels.jsonl"), "--texts", str(folder / name), "-o", str(folder / "out.jsonl")]
    return CliRunner().invoke(main, ["join-texts", *arguments])


@pytest.mark.parametrize("name", ["texts.jsonl", "texts.jsonl.gz"])
def test_labels_and_texts_make_rows_to_train_on(tmp_path: Path, name: str) -> None:
    result = joined(tmp_path, name=name)
    assert result.exit_code == 0, result.output
    (article,) = read_articles([tmp_path / "out.jsonl"])
    assert article.title == "A title"
    assert [(s.text, s.voice, s.doubt, s.label) for s in article.sentences] == [
        ("The ministry denied it.", Voice.PARTY, True, Label.OFFICIAL_CLAIM),
        ("“Unlikely”, a scholar said.", Voice.EXPERT, True, Label.EXPERT_SKEPTICISM),
        ("Rain fell.", Voice.NONE, False, Label.OTHER),
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"article_id": "a2"}, "a2 is not in"),
        ({"sha256": "0" * 64}, "a1 is not the same text in"),
        ({"sentences": [[0, 23, "X"]]}, "labels.jsonl:1: sentences.0.2"),
        ({"sentences": [[0, 23, "N-"]]}, "labels.jsonl:1: sentences.0.2"),
        ({"sentences": None}, "labels.jsonl:1: sentences"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    result = joined(tmp_path, LABELS | change)
    assert result.exit_code == 2
    assert problem in result.output
    assert not (tmp_path / "out.jsonl").exists()


def test_a_line_that_is_no_json_and_a_missing_file_are_named(tmp_path: Path) -> None:
    assert "labels.jsonl:1:" in joined(tmp_path, "{").output
    arguments = [str(tmp_path / "labels.jsonl"), "--texts", str(tmp_path / "none.jsonl"), "-o", "out.jsonl"]
    (tmp_path / "labels.jsonl").write_text(json.dumps(LABELS))
    result = CliRunner().invoke(main, ["join-texts", *arguments])
    assert result.exit_code == 2
    assert "none.jsonl: cannot be read" in result.output
