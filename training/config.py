"""One frozen configuration: defaults here, a YAML file over them, ``--set key=value`` over the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import SaysoError
from serving.windows import Limits


class ConfigError(SaysoError):
    """A configuration that cannot be used; the message names the key and the remedy."""


class Config(BaseModel):
    """A training recipe. Sizes are in tokens, shares between 0 and 1, rates per optimiser step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Data: a folder with train.jsonl, validation.jsonl and test.jsonl, and files to train on and to choose by besides.
    data: str = "datasets"
    extra_data: tuple[str, ...] = ()
    validation_data: tuple[str, ...] = ()
    extra_validation_share: float = Field(0.08, ge=0, le=0.5)
    teacher_scores: tuple[str, ...] = Field(
        (), description="what `sayso label --model TEACHER` wrote, as JSONL"
    )
    max_sentences: int = Field(0, ge=0, description="train on about so many sentences; 0 means all")

    # Encoder and windows.
    encoder: str = Field("minilm", description="minilm or mpnet (packaged), a local folder, or a hub's name")
    max_tokens: int = Field(384, ge=32, le=8192)
    overlap: int = Field(2, ge=0, le=16)
    title_tokens: int = Field(32, ge=0, le=128)
    lede_tokens: int = Field(0, ge=0, le=128)
    context: bool = Field(True, description="false shows every sentence alone: a baseline")
    alone_share: float = Field(
        0.1, ge=0, le=1, description="share of sentences shown alone besides, per epoch"
    )
    title_dropout: float = Field(0.2, ge=0, le=1, description="share of windows shown without their title")

    # Optimisation.
    seed: int = Field(13, ge=0)
    epochs: int = Field(5, ge=1)
    batch_size: int = Field(8, ge=1, description="windows per optimiser step")
    learning_rate: float = Field(1e-4, gt=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    layer_decay: float = Field(0.9, gt=0, le=1)
    frozen_layers: int = Field(0, ge=0, description="the encoder's lowest layers that stay as they are")
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps")
    dropout: float = Field(0.1, ge=0, lt=1, description="before the heads")
    encoder_dropout: float = Field(0.0, ge=0, lt=1, description="in the encoder's hidden layers")
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    doubt_weight: float = Field(0.5, ge=0)
    teacher_weight: float = Field(1.0, ge=0, description="of a teacher's scores, beside the labels")
    name_swaps: float = Field(0.0, ge=0, le=1, description="share of articles shown with other names in them")
    int8_rounding: bool = Field(True, description="train with the rounding that int8 will bring")
    patience: int = Field(3, ge=1, description="evaluations without a better macro-F1 before training stops")
    evaluations_per_epoch: int = Field(1, ge=1)
    bf16: Literal["auto", "on", "off"] = "auto"
    threads: int = Field(0, ge=0, description="0 takes all cores")

    @property
    def limits(self) -> Limits:
        """The shape of the windows."""
        return Limits(self.max_tokens, self.overlap, self.title_tokens, self.lede_tokens)


def load_config(path: Path | None = None, overrides: Iterable[str] = (), **values: Any) -> Config:
    """Return the defaults with the file's values over them, then ``key=value`` overrides, then ``values``."""
    settings = {} if path is None else _read_yaml(path)
    where = {key: str(path) for key in settings}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override}: expected key=value, such as --set epochs=3")
        settings[key.strip()] = _parse(value, f"--set {override}")
        where[key.strip()] = "--set"
    settings |= values
    for key in settings:
        if key not in Config.model_fields:
            raise ConfigError(f"{where.get(key, 'config')}: unknown key {key!r}{_nearest(key)}")
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise ConfigError(
            f"{where.get(key, 'config')}: {key}: {first['msg']}; found {first['input']!r}"
        ) from None


def dump_config(config: Config) -> str:
    """Return the complete, flat YAML of a configuration; ``load_config`` reads it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration; `ls configs` shows those that ship") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _parse(value: str, where: str) -> Any:
    try:
        return yaml.safe_load(value) if value else ""
    except yaml.YAMLError:
        raise ConfigError(f"{where}: the value is not valid YAML; quote it") from None


def _nearest(key: str) -> str:
    close = difflib.get_close_matches(key, Config.model_fields, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(Config.model_fields)}"
