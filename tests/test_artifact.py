"""A model directory is whole or not there, and is checked before it is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.artifact import (
    FORMAT_VERSION,
    ArtifactError,
    Calibration,
    Manifest,
    new_directory,
    read_manifest,
    read_verified,
    seal,
)
from serving.windows import Limits

MANIFEST = Manifest("v1", Limits(64, 1, 8), Calibration(1.5, 2.0, 0.5), encoder="minilm")


def write(directory: Path, content: str = "weights") -> Path:
    with new_directory(directory) as new:
        (new / "weights").write_text(content)
        seal(new, MANIFEST)
    return directory


def test_a_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path / "model"))
    assert (manifest.limits, manifest.calibration) == (MANIFEST.limits, MANIFEST.calibration)
    assert list(manifest.files) == ["weights"]


def test_one_changed_byte_is_refused_by_name(tmp_path: Path) -> None:
    model = write(tmp_path / "model")
    (model / "weights").write_text("weighty")
    with pytest.raises(ArtifactError, match=r"weights: differs from its checksum.*restore"):
        read_verified(model, "weights", read_manifest(model))


def test_a_missing_file_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    model = write(tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"no other; it has weights"):
        read_verified(model, "other", read_manifest(model))
    (model / "weights").unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_verified(model, "weights", read_manifest(model))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format_version": 1}', "null"])
def test_a_damaged_manifest_is_a_clear_error(tmp_path: Path, damage: str) -> None:
    (tmp_path / "manifest.json").write_text(damage)
    with pytest.raises(ArtifactError, match="damaged"):
        read_manifest(tmp_path)


def test_another_format_version_and_another_label_order_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model") / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"format_version": FORMAT_VERSION + 1}))
    with pytest.raises(ArtifactError, match=f"format version {FORMAT_VERSION + 1}"):
        read_manifest(path.parent)
    path.write_text(json.dumps(values | {"labels": values["labels"][::-1]}))
    with pytest.raises(ArtifactError, match="another order"):
        read_manifest(path.parent)


def test_a_folder_without_a_manifest_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a model directory"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failed_write_leaves_the_previous_model_and_nothing_else(tmp_path: Path, error: type) -> None:
    model = write(tmp_path / "model", "old")

    def fail() -> None:
        with new_directory(model) as new:
            (new / "weights").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert (model / "weights").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_new_model_replaces_the_old_one(tmp_path: Path) -> None:
    model = write(write(tmp_path / "model", "old"), "new")
    assert (model / "weights").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_directory_that_is_no_model_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="not a model directory"), new_directory(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").exists()
