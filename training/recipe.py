"""A recipe from its configuration to a model directory: read, fine-tune, calibrate, export, evaluate, seal."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path

import numpy as np

from serving.artifact import (
    ENCODER,
    ONNX,
    TOKENIZER,
    WEIGHTS,
    Calibration,
    Manifest,
    new_directory,
    read_manifest,
    read_verified,
    seal,
)
from serving.errors import SaysoError
from serving.labels import LABELS
from serving.predictor import Predictor
from serving.windows import Article, Window, Windows
from training.calibration import fit_calibration
from training.config import Config, dump_config, load_config
from training.corpus import LabelledArticle, checksum, count
from training.data import Data, read_data, sentence_count
from training.evaluation import evaluate
from training.export import export_int8, export_onnx
from training.finetune import FineTuned, finetune, read_validation
from training.model import Network, average_networks, load_network, save_network
from training.report import JSON, write_report

CONFIG = "config.yaml"
_SAMPLE_ARTICLES = 24
_PACKAGES = ("sayso", "torch", "transformers", "tokenizers", "onnx", "onnxruntime", "scikit-learn", "numpy")
# What the service needs, and what training on needs; the reports go with what is served.
PARTS = {"serving": (ONNX["int8"], TOKENIZER), "checkpoint": (WEIGHTS, ENCODER, TOKENIZER)}


def fit(
    config: Config,
    output: Path,
    *,
    resume: bool = False,
    start: Network | None = None,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Train a recipe and write its model directory; return the manifest.

    Until the directory is complete nothing changes at ``output``; checkpoints lie beside it and are removed at
    the end. Raises SaysoError for data or settings that cannot be used.
    """
    data = read_data(config)
    say(_about(data))
    checkpoints = checkpoint_directory(output)
    tuned = finetune(data, config, checkpoints, resume=resume, start=start, say=say)
    manifest = _write_model(config, data, tuned, output, say)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return manifest


def average(models: Sequence[Path], output: Path, *, say: Callable[[str], None] = print) -> Manifest:
    """Write a model whose weights are the mean of the models' weights; return its manifest.

    It is calibrated and evaluated on the data of the first model's recipe. Averaging pays where the models continue
    from the same weights, with other seeds: Wortsman et al. 2022, "Model soups". Raises SaysoError for models of
    different shapes, and where one was chosen by other validation data: that may hold what another was trained on.
    """
    manifests = [read_manifest(model) for model in models]
    for model, manifest in zip(models, manifests, strict=True):
        if _kind(manifest) != _kind(manifests[0]):
            raise SaysoError(
                f"{model} and {models[0]} do not go together: they differ in encoder, windows or validation data;"
                " average models that continue from the same one, with other seeds"
            )
    config = load_config(models[0] / CONFIG)
    data = read_data(config)
    say(_about(data))
    network = average_networks([load_network(model) for model in models])
    windows = Windows(network.tokenizer, config.limits)
    tuned = FineTuned(network, windows, read_validation(network, windows, data, config))
    return _write_model(config, data, tuned, output, say, averaged=[m.model_version for m in manifests])


def _kind(manifest: Manifest) -> tuple[object, ...]:
    return manifest.encoder, manifest.limits, manifest.data["validation"]["sha256"]


def _write_model(
    config: Config,
    data: Data,
    tuned: FineTuned,
    output: Path,
    say: Callable[[str], None],
    averaged: Sequence[str] = (),
) -> Manifest:
    logits = tuned.validation
    article = np.repeat(np.arange(len(data.validation)), [len(a.sentences) for a in data.validation])
    calibration = fit_calibration(logits.voice, logits.doubt, logits.label, article)
    with new_directory(output) as directory:
        say("exporting to ONNX, fp32 and int8 …")
        _write_network(tuned, data, directory)
        (directory / CONFIG).write_text(dump_config(config), encoding="utf-8")
        manifest = _manifest(config, data, tuned, calibration, version=_version(directory), averaged=averaged)
        seal(directory, manifest)
        say("evaluating on validation and test …")
        _evaluate(directory, data)
        return seal(directory, manifest)


def _version(directory: Path) -> str:
    """Return the date and the beginning of the weights' checksum, which no other weights have."""
    with (directory / WEIGHTS).open("rb") as file:
        return f"{datetime.now(UTC):%Y.%m.%d}-{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


def checkpoint_directory(output: Path) -> Path:
    """Return where the checkpoints of a run that writes ``output`` are kept until it ends."""
    return output.with_name(output.name + ".checkpoints")


def export_part(model: Path, part: str, output: Path) -> Manifest:
    """Write the part of a model directory that serving or training on needs, with its reports, to ``output``."""
    manifest = read_manifest(model)
    names = set(PARTS[part])
    if part == "serving":
        names |= {n for n in manifest.files if n in (CONFIG, JSON) or Path(n).suffix in (".md", ".png")}
    with new_directory(output) as directory:
        for name in names:
            (directory / name).write_bytes(read_verified(model, name, manifest))
        return seal(directory, manifest)


def _write_network(tuned: FineTuned, data: Data, directory: Path) -> None:
    save_network(tuned.network, directory)
    windows = _sample_windows(tuned, data)
    export_onnx(tuned.network.classifier, directory / ONNX["fp32"], windows)
    export_int8(tuned.network.classifier, directory / ONNX["int8"], windows)


def _sample_windows(tuned: FineTuned, data: Data) -> list[Window]:
    """Return real windows, lone sentences and joint ones, to compare ONNX with torch and to see activations by."""
    articles = data.validation[:: max(1, len(data.validation) // _SAMPLE_ARTICLES)]
    read = [Article([a.sentences[0].text]) for a in articles[:4]]
    read += [a.unlabelled() for a in articles]
    return [window for article in read for window in tuned.windows.cut(tuned.windows.encode(article))]


def _evaluate(directory: Path, data: Data) -> None:
    predictor = Predictor.load(directory)
    threshold = predictor.manifest.calibration.labels_90
    sets = {"validation": data.validation, "test": data.test}
    sets = {name: articles for name, articles in sets.items() if articles}
    write_report(
        {name: evaluate(predictor, articles, labels_90=threshold) for name, articles in sets.items()},
        directory,
        alone={
            name: evaluate(predictor, articles, alone=True, labels_90=threshold)
            for name, articles in sets.items()
        },
        model=predictor.manifest.model_version,
    )


def _manifest(
    config: Config,
    data: Data,
    tuned: FineTuned,
    calibration: Calibration,
    *,
    version: str,
    averaged: Sequence[str],
) -> Manifest:
    return Manifest(
        model_version=version,
        limits=config.limits,
        calibration=calibration,
        encoder=config.encoder,
        pad_id=tuned.network.pad_id,
        data={
            "train": _described(data.train),
            "validation": _described(data.validation),
            "files": [f"{config.data}/train.jsonl", *(Path(path).name for path in config.extra_data)],
        },
        training={
            **tuned.speed,
            **({"averaged": list(averaged)} if averaged else {}),
            "validation_macro_f1": round(tuned.validation.macro_f1, 5),
            "history": [
                {"epoch": e["epoch"], "macro_f1": round(e["eval_macro_f1"], 5)} for e in tuned.history
            ],
        },
        packages={"python": platform.python_version()} | {name: package_version(name) for name in _PACKAGES},
    )


def _described(articles: list[LabelledArticle]) -> dict[str, object]:
    counts = count(articles)
    return {
        "articles": counts.articles,
        "sentences": counts.sentences,
        "labels": {label.value: counts.labels[label] for label in LABELS},
        "sha256": checksum(articles),
    }


def _about(data: Data) -> str:
    parts = [
        f"{name}: {sentence_count(articles):,} sentences in {len(articles):,} articles"
        for name, articles in (("train", data.train), ("validation", data.validation), ("test", data.test))
    ]
    return "; ".join(parts)
