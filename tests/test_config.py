"""A recipe is read strictly, and every shipped one is complete."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from training.config import Config, ConfigError, dump_config, load_config

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_recipe_loads_and_names_every_key(path: Path) -> None:
    load_config(path)
    assert list(yaml.safe_load(path.read_text())) == list(Config.model_fields)


def test_the_command_line_overrides_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 2\nseed: 5\n")
    config = load_config(path, ["epochs=3"])
    assert (config.epochs, config.seed, config.batch_size) == (3, 5, Config().batch_size)


def test_a_number_that_yaml_reads_as_a_string_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("learning_rate: 2e-5\n")
    assert load_config(path).learning_rate == 2e-5
    assert load_config(None, ["learning_rate=3e-5"]).learning_rate == 3e-5


def test_an_unknown_key_is_named_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("learnin_rate: 1\n")
    with pytest.raises(
        ConfigError, match=r"mine.yaml: unknown key 'learnin_rate'; did you mean 'learning_rate'"
    ):
        load_config(path)
    with pytest.raises(ConfigError, match=r"--set: unknown key 'zzz'; known keys: data"):
        load_config(None, ["zzz=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=0", "epochs: .*greater"),
        ("epochs=many", "epochs: .*'many'"),
        ("epochs", "expected key=value"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", "just words"])
def test_a_file_that_is_no_recipe_is_a_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(path)
    with pytest.raises(ConfigError, match="no such configuration"):
        load_config(tmp_path / "none.yaml")


def test_a_dumped_recipe_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "dumped.yaml"
    config = load_config(None, ["seed=7", "extra_data=[a.jsonl]"])
    path.write_text(dump_config(config))
    assert load_config(path) == config
