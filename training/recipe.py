"""A recipe from its configuration to a model directory: read, fine-tune, calibrate, export, evaluate, seal."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from serving.artifact import (
    ENCODER,
    ONNX,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    Temperatures,
    new_directory,
    read_manifest,
    read_verified,
    seal,
)
from serving.labels import LABELS
from serving.predictor import Predictor
from serving.windows import Article, Window
from training.calibration import fit_temperatures
from training.config import Config, dump_config
from training.corpus import LabelledArticle, checksum, count
from training.data import Data, read_data, sentence_count
from training.evaluation import evaluate
from training.export import export_int8, export_onnx
from training.finetune import FineTuned, finetune
from training.model import Network, save_network
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
    temperatures = fit_temperatures(tuned.validation.voice, tuned.validation.doubt, tuned.validation.label)
    with new_directory(output) as directory:
        say("exporting to ONNX, fp32 and int8 …")
        _write_network(tuned, data, directory)
        (directory / CONFIG).write_text(dump_config(config), encoding="utf-8")
        manifest = seal(directory, _manifest(config, data, tuned, temperatures))
        say("evaluating on validation and test …")
        _evaluate(directory, data)
        manifest = seal(directory, manifest)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return manifest


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
    read += [Article([s.text for s in a.sentences], a.title) for a in articles]
    return [window for article in read for window in tuned.windows.cut(tuned.windows.encode(article))]


def _evaluate(directory: Path, data: Data) -> None:
    predictor = Predictor.load(directory)
    sets = {"validation": data.validation, "test": data.test}
    sets = {name: articles for name, articles in sets.items() if articles}
    write_report(
        {name: evaluate(predictor, articles) for name, articles in sets.items()},
        directory,
        alone={name: evaluate(predictor, articles, alone=True) for name, articles in sets.items()},
        model=predictor.manifest.model_version,
    )


def _manifest(config: Config, data: Data, tuned: FineTuned, temperatures: Temperatures) -> Manifest:
    return Manifest(
        model_version=f"{datetime.now(UTC):%Y.%m.%d}-{checksum(data.train)[:8]}-{config.seed}",
        limits=config.limits,
        temperatures=temperatures,
        encoder=config.encoder,
        pad_id=tuned.network.pad_id,
        data={
            "train": _described(data.train),
            "validation": _described(data.validation),
            "files": [f"{config.data}/train.jsonl", *(Path(path).name for path in config.extra_data)],
        },
        training={
            **tuned.speed,
            "best_validation_macro_f1": max(entry["eval_macro_f1"] for entry in tuned.history),
            "history": [
                {"epoch": e["epoch"], "macro_f1": round(e["eval_macro_f1"], 5)} for e in tuned.history
            ],
        },
        packages={"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
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
