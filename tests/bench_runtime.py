"""Throughput and agreement of the runtimes on the same windows: torch fp32, ONNX fp32, ONNX int8.

    python tests/bench_runtime.py --model models/release --data test

Machines differ and are noisy: quote the ratios. Every contender reads the same windows of whole articles, in turn,
several times; the best round of each counts. Torch gets padded batches of like length, its best case.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch

from serving.predictor import Article, Predictor
from serving.windows import Window, collate
from training.data import read_set
from training.metrics import macro_f1
from training.model import load_network

BATCH = 8


def torch_runner(model: Path, windows: list[Window]) -> Callable[[], object]:
    network = load_network(model)
    network.classifier.encoder.set_attn_implementation("sdpa")
    ordered = sorted(windows, key=lambda w: -w.length)
    batches = [
        tuple(torch.from_numpy(array) for array in vars(collate(ordered[i : i + BATCH])).values())
        for i in range(0, len(ordered), BATCH)
    ]

    def run() -> object:
        with torch.inference_mode():
            return [network.classifier(*batch) for batch in batches]

    return run


@click.command()
@click.option("--model", type=click.Path(path_type=Path), required=True, help="A complete model directory.")
@click.option("--data", default="test", show_default=True, help="A split or a labelled file.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=0, help="0 takes all cores")
def main(model: Path, data: str, rounds: int, threads: int) -> None:
    """Print sentences a second and ratios to torch, then how far int8 and fp32 agree."""
    if threads:
        torch.set_num_threads(threads)
    labelled = read_set(data)
    articles = [a.unlabelled() for a in labelled]
    predictors = {
        name: Predictor.load(model, precision=name, threads=threads or None) for name in ("fp32", "int8")
    }
    windows = [window for article in articles for window in predictors["int8"].prepare(article)]
    runners: dict[str, Callable[[], object]] = {"torch fp32": torch_runner(model, windows)}
    runners |= {f"ONNX {name}": lambda p=p: p.run(windows) for name, p in predictors.items()}  # type: ignore[misc]
    runners["Predictor int8, text to labels"] = lambda: predictors["int8"].predict(articles)
    seconds = {name: min(_timed(run) for _ in range(rounds)) for name, run in runners.items()}
    sentences = sum(len(a.sentences) for a in articles)
    for name, best in seconds.items():
        click.echo(
            f"{name:32} {sentences / best:8.0f} sentences/s   {seconds['torch fp32'] / best:5.2f} x torch fp32"
        )
    gold = [s.label for a in labelled for s in a.sentences]
    for alone in (False, True):
        units = [Article([s]) for a in articles for s in a.sentences] if alone else articles
        labels = {n: [p.label for row in pr.predict(units) for p in row] for n, pr in predictors.items()}
        same = np.mean([a is b for a, b in zip(labels["int8"], labels["fp32"], strict=True)])
        scores = {n: macro_f1(gold, found) for n, found in labels.items()}
        click.echo(
            f"{'alone' if alone else 'in context'}: int8 agrees with fp32 on {same:.2%} of labels;"
            f" macro-F1 {scores['int8']:.4f} against {scores['fp32']:.4f}"
        )


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
