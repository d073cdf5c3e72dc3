"""Fine-tuning from a recipe to a model directory, on a toy corpus with a tiny encoder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from toy import ROOT, TOY, toy_rows, write_jsonl

from serving.artifact import read_manifest
from serving.errors import SaysoError
from serving.labels import label_scores
from serving.predictor import Article, Predictor
from serving.windows import Limits, Windows
from training.cli import main
from training.config import Config, load_config
from training.corpus import read_articles
from training.data import read_data
from training.export import parity
from training.finetune import uses_bf16
from training.model import (
    IGNORE,
    Objective,
    freeze,
    label_log_scores,
    load_network,
    load_tokenizer,
    new_network,
    parameter_groups,
)
from training.names import NameSwaps
from training.recipe import checkpoint_directory, export_part, fit
from training.sampling import Collator, EncodedCorpus, TrainingEpochs


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "training.cli", *arguments]


def sets(recipe: list[str]) -> list[str]:
    return [part for value in recipe for part in ("--set", value)]


@given(st.lists(st.floats(-8, 8), min_size=5, max_size=5), st.lists(st.floats(-8, 8), min_size=2, max_size=2))
def test_the_labels_scores_in_training_are_those_in_serving(voice: list[float], doubt: list[float]) -> None:
    v, d = torch.tensor([voice], dtype=torch.float64), torch.tensor([doubt], dtype=torch.float64)
    scores = label_scores(v.softmax(-1).numpy(), d.softmax(-1)[:, 1].numpy())
    assert label_log_scores(v, d).numpy() == pytest.approx(np.log(scores), abs=1e-6)


@pytest.fixture(scope="module")
def corpus(toy_data: Path) -> EncodedCorpus:
    windows = Windows(load_tokenizer("minilm"), Limits(64, 2, 8))
    return EncodedCorpus(read_articles([toy_data / "train.jsonl"]), windows)


def test_every_epoch_shows_every_sentence_once_in_context_at_other_cuts(corpus: EncodedCorpus) -> None:
    config = Config(epochs=3, batch_size=1, max_tokens=64, title_tokens=8, title_dropout=0, alone_share=0)
    epochs = TrainingEpochs(corpus, config)
    cuts = []
    for epoch in range(3):
        epochs.set_epoch(epoch)
        joint = [e for i in range(len(epochs)) for e in epochs[i] if len(e.window.spans) > 1]
        lone = [e for i in range(len(epochs)) for e in epochs[i] if len(e.window.spans) == 1]
        assert sum(len(e.targets) for e in joint) + len(lone) >= len(corpus.positions())
        cuts.append(Counter(len(e.targets) for e in joint))
    assert cuts[0] != cuts[1] or cuts[1] != cuts[2]


def test_every_epoch_has_the_same_number_of_full_batches(corpus: EncodedCorpus) -> None:
    epochs = TrainingEpochs(corpus, Config(epochs=4, batch_size=4, max_tokens=64, title_tokens=8))
    sizes = set()
    for epoch in range(4):
        epochs.set_epoch(epoch)
        items = [epochs[i] for i in range(len(epochs))]
        assert all(items)
        sizes.add(len(items))
    assert len(sizes) == 1
    assert sizes.pop() % 4 == 0


def test_a_share_of_the_articles_is_shown_with_other_names_and_the_same_targets(toy_data: Path) -> None:
    articles = read_articles([toy_data / "train.jsonl"])
    windows = Windows(load_tokenizer("minilm"), Limits(64, 2, 8))
    corpus = EncodedCorpus(articles, windows, NameSwaps(articles))
    assert len(corpus.swapped) == len(corpus.articles)
    for share in (0.0, 1.0):
        epochs = TrainingEpochs(corpus, Config(epochs=1, max_tokens=64, title_tokens=8, name_swaps=share))
        cuts = epochs._cuts(0)
        assert {cut.swapped for cut in cuts} == {bool(share)}
        for cut in cuts:
            example = corpus.example(cut)
            assert example.window.length <= 64
            assert np.array_equal(
                example.targets, corpus.targets[cut.article][cut.block.start : cut.block.stop]
            )


def test_reading_gives_every_target_exactly_once(corpus: EncodedCorpus) -> None:
    for context in (True, False):
        batch = Collator(0)(corpus.reading(context=context))
        found = Counter(batch["label"][batch["label"] != IGNORE].tolist())
        assert found == Counter(np.concatenate(corpus.targets)[:, 2].tolist())


def test_frozen_layers_stay_as_they_are() -> None:
    classifier = new_network("minilm", dropout=0, encoder_dropout=0).classifier
    freeze(classifier, 0)
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    freeze(classifier, 2)
    objective = Objective(classifier, label_smoothing=0, doubt_weight=0.5)
    groups = list(parameter_groups(objective, encoder_rate=1, head_rate=1, decay=0.9))
    learning = {id(parameter) for group in groups for parameter in group["params"]}
    for name, parameter in classifier.named_parameters():
        frozen = name.startswith(
            ("encoder.embeddings", "encoder.encoder.layer.0.", "encoder.encoder.layer.1.")
        )
        assert (id(parameter) not in learning) == frozen == (not parameter.requires_grad), name


def test_fit_writes_a_complete_verified_directory_without_pickles(toy_model: Path) -> None:
    manifest = read_manifest(toy_model)
    names = {path.name for path in toy_model.iterdir()} - {"manifest.json"}
    assert set(manifest.files) == names
    assert {"model.safetensors", "encoder.json", "tokenizer.json", "model.onnx", "model.int8.onnx"} <= names
    assert {"config.yaml", "report.json", "report.md"} <= names
    assert not [n for n in names if Path(n).suffix in (".pt", ".pth", ".bin", ".pkl")]
    assert manifest.data["train"]["sentences"] == len(toy_rows("train", 12))
    assert manifest.packages["torch"]
    assert not checkpoint_directory(toy_model).exists()
    assert [p.name for p in toy_model.parent.iterdir()] == ["toy"]


def test_the_toy_corpus_is_learnt(toy_model: Path) -> None:
    report = json.loads((toy_model / "report.json").read_text())
    assert report["datasets"]["test"]["in_context"]["macro_f1"] > 0.3
    predictor = Predictor.load(toy_model)
    labels = [p.label for p in predictor.predict([Article([text for text, *_ in TOY])])[0]]
    assert len(set(labels)) > 1


def test_onnx_agrees_with_torch_and_int8_with_fp32(toy_model: Path, toy_data: Path) -> None:
    network = load_network(toy_model)
    predictor = Predictor.load(toy_model, precision="fp32")
    articles = [
        Article([s.text for s in a.sentences], a.title) for a in read_articles([toy_data / "test.jsonl"])
    ]
    windows = [window for article in articles for window in predictor.prepare(article)]
    # The checkpoint is fp16; the ONNX file was made before it was rounded.
    assert parity(network.classifier, toy_model / "model.onnx", windows) < 0.05
    exact = [p for row in predictor.predict(articles) for p in row]
    small = [p for row in Predictor.load(toy_model).predict(articles) for p in row]
    assert np.mean([a.label is b.label for a, b in zip(exact, small, strict=True)]) >= 0.9


def test_the_same_seed_gives_the_same_weights(toy_recipe: list[str], toy_model: Path, tmp_path: Path) -> None:
    fit(load_config(None, toy_recipe), tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        toy_model / "model.safetensors"
    ).read_bytes()


def test_sentences_with_only_a_label_train_the_derived_scores(
    toy_recipe: list[str], toy_model: Path, tmp_path: Path
) -> None:
    rows = [{"text": f"{text} {i}", "label": label} for i in range(6) for text, _, _, label in TOY]
    users = write_jsonl(tmp_path / "mine.jsonl", rows)
    result = CliRunner().invoke(
        main,
        [
            "fit",
            *sets(toy_recipe),
            "--extra-data",
            str(users),
            "--init",
            str(toy_model),
            "-o",
            str(tmp_path / "m"),
        ],
    )
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "m")
    assert manifest.data["files"][1] == "mine.jsonl"
    assert manifest.data["validation"]["sentences"] > len(toy_rows("validation", 4))


@pytest.mark.parametrize("moment", ["checkpoint-", "."])
def test_a_killed_run_leaves_the_old_model_and_resumes(
    toy_recipe: list[str], toy_model: Path, tmp_path: Path, moment: str
) -> None:
    output = tmp_path / "model"
    export_part(toy_model, "serving", output)
    before = {p.name: p.read_bytes() for p in output.iterdir()}
    arguments = ["fit", *sets([*toy_recipe, "epochs=4"]), "-o", str(output)]
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    folder = checkpoint_directory(output) if moment == "checkpoint-" else tmp_path
    deadline = time.monotonic() + 120
    while not (folder.is_dir() and any(_is_there(p, moment) for p in folder.iterdir())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert {p.name: p.read_bytes() for p in output.iterdir()} == before
    done = subprocess.run(
        command(*arguments, "--resume"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Predictor.load(output).predict([Article(["He said so."])])


def _is_there(path: Path, moment: str) -> bool:
    return path.name.startswith(moment) and (moment == "." or (path / "trainer_state.json").exists())


def test_ctrl_c_says_how_to_resume(toy_recipe: list[str], tmp_path: Path) -> None:
    output = tmp_path / "model"
    process = subprocess.Popen(
        command("fit", *sets([*toy_recipe, "epochs=60", "patience=60"]), "-o", str(output)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    while not checkpoint_directory(output).is_dir():
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command with --resume" in stderr
    assert "Traceback" not in stderr
    assert not output.exists()


def test_resuming_without_a_checkpoint_is_a_clear_error(toy_recipe: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["fit", *sets(toy_recipe), "--resume", "-o", str(tmp_path / "m")])
    assert result.exit_code == 2
    assert "no checkpoint to resume from" in result.output


@pytest.mark.parametrize("encoder", ["/no/such/encoder", "no-such-hub-name"])
def test_an_encoder_that_is_not_there_is_named(encoder: str) -> None:
    with pytest.raises(SaysoError, match=f"encoder '{encoder}'"):
        new_network(encoder, dropout=0, encoder_dropout=0)


def test_a_window_beyond_the_encoders_positions_is_refused(toy_recipe: list[str], tmp_path: Path) -> None:
    with pytest.raises(SaysoError, match="exceeds the 512 positions"):
        fit(load_config(None, [*toy_recipe, "max_tokens=600"]), tmp_path / "m")


def test_bfloat16_is_a_choice() -> None:
    assert uses_bf16("on")
    assert not uses_bf16("off")
    assert isinstance(uses_bf16("auto"), bool)


def test_check_data_reports_every_error_and_counts(tmp_path: Path) -> None:
    good = write_jsonl(tmp_path / "good.jsonl", toy_rows("a", 2))
    result = CliRunner().invoke(main, ["check-data", str(good)])
    assert result.exit_code == 0
    assert "official_claim" in result.output
    bad = write_jsonl(
        tmp_path / "bad.jsonl", [{"text": "x", "label": "offical_claim"}, {"text": " ", "label": "other"}]
    )
    result = CliRunner().invoke(main, ["check-data", str(bad)])
    assert result.exit_code == 1
    assert f"{bad}:1: " in result.output
    assert f"{bad}:2: " in result.output
    assert "2 errors" in result.output


def test_evaluating_a_file_adds_its_section_and_keeps_the_model_sealed(
    toy_model: Path, toy_data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    export_part(toy_model, "serving", model)
    result = CliRunner().invoke(main, ["evaluate", "-m", str(model), "-d", str(toy_data / "train.jsonl")])
    assert result.exit_code == 0, result.output
    report = json.loads((model / "report.json").read_text())
    assert {"validation", "test", "train"} <= set(report["datasets"])
    assert set(read_manifest(model).files) == {p.name for p in model.iterdir()} - {"manifest.json"}


def test_compare_prints_one_table_and_adds_it_to_the_report(
    toy_model: Path, toy_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(toy_model, model)
    result = CliRunner().invoke(main, ["compare", "-m", str(model), "-d", str(toy_data / "test.jsonl")])
    assert result.exit_code == 0, result.output
    rows = json.loads((model / "report.json").read_text())["comparison"]["rows"]
    assert len(rows) == 6
    assert "in context" in result.output
    assert read_manifest(tmp_path / "model-single").training["seconds"] > 0


def test_help_teaches_every_command() -> None:
    for name in ("check-data", "fit", "evaluate", "compare", "export"):
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0
        assert len(result.output) > 300


def test_an_average_holds_the_mean_of_the_weights_and_is_a_model_like_any(
    toy_recipe: list[str], toy_model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    again = load_config(None, [*toy_recipe, "epochs=1", "seed=5"])
    fit(again, other, start=load_network(toy_model))
    result = CliRunner().invoke(main, ["average", str(toy_model), str(other), "-o", str(tmp_path / "mean")])
    assert result.exit_code == 0, result.output
    states = [load_network(d).classifier.state_dict() for d in (toy_model, other, tmp_path / "mean")]
    for one, two, mean in zip(*(state.values() for state in states), strict=True):
        assert torch.allclose((one + two) / 2, mean, atol=1e-3)  # saved in fp16
    manifest = read_manifest(tmp_path / "mean")
    assert manifest.training["averaged"] == [read_manifest(d).model_version for d in (toy_model, other)]
    assert manifest.model_version not in manifest.training["averaged"]
    assert Predictor.load(tmp_path / "mean").predict([Article(["The army said so."])])


def test_models_that_do_not_go_together_are_not_averaged(
    toy_recipe: list[str], toy_model: Path, tmp_path: Path
) -> None:
    fit(load_config(None, [*toy_recipe, "epochs=1", "max_tokens=48"]), tmp_path / "other")
    result = CliRunner().invoke(
        main, ["average", str(toy_model), str(tmp_path / "other"), "-o", str(tmp_path / "mean")]
    )
    assert result.exit_code == 2
    assert "do not go together" in result.output
    assert not (tmp_path / "mean").exists()


def test_validation_stays_the_same_under_another_seed_and_with_one_more_file(
    toy_data: Path, tmp_path: Path
) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", toy_rows("one", 20))
    two = write_jsonl(tmp_path / "two.jsonl", toy_rows("two", 20))
    values = {"data": str(toy_data), "extra_validation_share": 0.2}
    first = read_data(Config(**values, extra_data=(str(one),), seed=1))
    second = read_data(Config(**values, extra_data=(str(two), str(one)), seed=2))
    held = {a.id for a in first.validation}
    assert held == {a.id for a in second.validation if not a.id.startswith("two")}
    assert not held & {a.id for a in second.train}
    assert sum(a.id.startswith("two") for a in second.validation) == 4


def test_validation_files_are_chosen_by_and_not_trained_on(toy_data: Path, tmp_path: Path) -> None:
    mine = write_jsonl(tmp_path / "mine.jsonl", toy_rows("mine", 3))
    without = read_data(Config(data=str(toy_data)))
    data = read_data(Config(data=str(toy_data), validation_data=(str(mine),)))
    assert data.train == without.train
    assert [a.id for a in data.validation if a not in without.validation] == ["mine-0", "mine-1", "mine-2"]
