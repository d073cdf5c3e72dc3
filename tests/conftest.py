"""What several test files need: a toy corpus, a tiny encoder, and a model trained from both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from toy import toy_rows, write_jsonl

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["BENTOML_DO_NOT_TRACK"] = "True"


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl, validation.jsonl and test.jsonl."""
    folder = tmp_path_factory.mktemp("toy")
    for name, articles in (("train", 12), ("validation", 4), ("test", 4)):
        write_jsonl(folder / f"{name}.jsonl", toy_rows(name, articles))
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder of two narrow layers with the packaged tokenizer."""
    from transformers import BertConfig, BertModel

    from training.model import load_tokenizer

    folder = tmp_path_factory.mktemp("encoder")
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    load_tokenizer("minilm").save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizerFast"}')
    return folder


@pytest.fixture(scope="session")
def toy_recipe(toy_data: Path, tiny_encoder: Path) -> list[str]:
    """``--set`` values that make a run take seconds."""
    places = [f"data={toy_data}", f"encoder={tiny_encoder}"]
    return [*places, "max_tokens=64", "title_tokens=8", "epochs=2", "batch_size=4", "learning_rate=1e-3"]


@pytest.fixture(scope="session")
def toy_model(toy_recipe: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory as ``fit`` writes it."""
    from training.config import load_config
    from training.recipe import fit

    output = tmp_path_factory.mktemp("models") / "toy"
    fit(load_config(None, toy_recipe), output)
    return output
