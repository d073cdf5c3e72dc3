"""The model directory: layout, manifest, checksums, atomic write, verified read.

==================  =====================================================================
manifest.json       format version, label order, limits, calibration, origin, checksums
tokenizer.json      the encoder's fast tokenizer
model.int8.onnx     the network for serving
model.onnx          the same in fp32
model.safetensors   the classifier's weights for training, with encoder.json, its shape
config.yaml         the resolved recipe
report.*, *.png     the evaluation
==================  =====================================================================

A directory may hold only some of these (the embedded default leaves out what only training needs); the manifest
lists what is there. Nothing is pickled, and every file is checked against its checksum before it is used.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from serving.errors import SaysoError
from serving.labels import LABELS, VOICES
from serving.windows import Limits

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
ONNX = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
WEIGHTS = "model.safetensors"
ENCODER = "encoder.json"
DEFAULT_MODEL = Path(__file__).parent / "default_model"


class ArtifactError(SaysoError):
    """A model directory that is missing, damaged, or of another format."""


@dataclass(frozen=True)
class Calibration:
    """How the heads' logits become scores, fitted on validation.

    ``voice`` and ``doubt`` are temperatures, which the logits are divided by before the softmax (Guo et al. 2017);
    ``doubt_shift`` is then added to the logit of doubt. The labels whose scores are ``labels_90`` or more are the set
    that holds the right one in nine of ten sentences.
    """

    voice: float = 1.0
    doubt: float = 1.0
    doubt_shift: float = 0.0
    labels_90: float = 0.0


@dataclass(frozen=True)
class Manifest:
    """What a model directory says of itself."""

    model_version: str
    limits: Limits
    calibration: Calibration
    encoder: str
    pad_id: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = LABELS
    voices: tuple[str, ...] = VOICES
    format_version: int = FORMAT_VERSION
    files: dict[str, str] = field(default_factory=dict)


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of a model directory; raise ArtifactError where it is not one that this version reads."""
    path = directory / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            raise ArtifactError(
                f"{path}: format version {values['format_version']}, this Sayso reads {FORMAT_VERSION};"
                " install the version that wrote it, or train anew"
            )
        values |= {
            "limits": Limits(**values["limits"]),
            "calibration": Calibration(**values["calibration"]),
            "labels": tuple(values["labels"]),
            "voices": tuple(values["voices"]),
        }
        manifest = Manifest(**values)
    except FileNotFoundError:
        raise ArtifactError(
            f"{directory}: not a model directory, it has no {MANIFEST}; give what `fit` wrote"
        ) from None
    except ArtifactError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: damaged ({type(error).__name__}: {error}); restore the directory"
        ) from None
    if manifest.labels != tuple(LABELS) or manifest.voices != tuple(VOICES):
        raise ArtifactError(
            f"{path}: other labels or voices than this Sayso's, or in another order; train anew"
        )
    return manifest


def read_verified(directory: Path, name: str, manifest: Manifest) -> bytes:
    """Return the content of a file of the model after its checksum was found right."""
    path = directory / name
    if name not in manifest.files:
        raise ArtifactError(
            f"{directory}: this model has no {name}; it has {', '.join(sorted(manifest.files))}"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); restore the directory") from None
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise ArtifactError(
            f"{path}: differs from its checksum in {MANIFEST}; restore the file or the directory"
        )
    return content


def seal(directory: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with the checksum of every other file of the directory, and return it."""
    files = {
        path.relative_to(directory).as_posix(): _sha256(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    sealed = replace(manifest, files=files)
    temporary = directory / f".{MANIFEST}"
    temporary.write_text(json.dumps(asdict(sealed), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(directory / MANIFEST)
    return sealed


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Yield an empty directory that takes ``target``'s place when the block ends without an error.

    Whatever happens before, ``target`` stays as it was; a directory that it replaces is deleted afterwards.
    """
    target = target.absolute()
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).exists():
        raise ArtifactError(f"{target}: exists and is not a model directory; give another one")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        if target.exists():
            _exchange(temporary, target)
        else:
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Swap two directories, in one step where the system can (Linux), so that a kill leaves one of them whole."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    at_cwd, rename_exchange = -100, 2
    if renameat2 is not None and renameat2(at_cwd, bytes(one), at_cwd, bytes(other), rename_exchange) == 0:
        return
    aside = one.with_name(one.name + ".previous")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
