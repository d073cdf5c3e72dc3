"""Rows of ``compare`` that other libraries train, with the same encoder on the same lone sentences.

They come with the extra ``peers``; nothing else needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from serving.errors import SaysoError
from serving.labels import LABELS, Label
from training.baselines import Articles, LogisticBaseline, labels_of, texts_of
from training.encoders import encoder_source

_STATIC_DIMENSIONS = 256  # model2vec's default
_SETFIT_TOKENS = 128  # no sentence of the written corpus is longer


class StaticLogistic(LogisticBaseline):
    """A static embedding of every token, distilled from the encoder (model2vec), with logistic regression."""

    name = "model2vec + logistic regression"
    grid = (1.0, 10.0, 100.0)

    def __init__(self, *, seed: int = 0, encoder: str = "minilm") -> None:
        super().__init__(seed=seed)
        self.encoder = encoder
        self._distillation = _library("model2vec.distill")

    def learn_features(self, texts: Sequence[str]) -> NDArray[Any]:
        """Distil the encoder, and return the training texts' features."""
        with encoder_source(self.encoder) as source:
            self.model = self._distillation.distill(source, pca_dims=_STATIC_DIMENSIONS, device="cpu")
        return self.features(texts)

    def features(self, texts: Sequence[str]) -> NDArray[Any]:
        """Return the embeddings, shape (n, 256)."""
        embedded: NDArray[Any] = self.model.encode(list(texts))
        return embedded


class SetFit:
    """SetFit (Tunstall et al. 2022): the encoder tuned on pairs of sentences, then logistic regression.

    Two pairs a sentence and the library's defaults; validation chooses nothing.
    """

    name = "SetFit"

    def __init__(self, *, seed: int = 0, encoder: str = "minilm") -> None:
        self.seed = seed
        self.encoder = encoder
        self._setfit = _library("setfit")

    def fit(self, train: Articles, validation: Articles) -> None:
        """Tune the encoder and fit the head."""
        rows = {"text": texts_of(train), "label": [LABELS.index(label) for label in labels_of(train)]}
        # Not `from datasets`: for the type checker that is this repository's folder.
        dataset = import_module("datasets").Dataset.from_dict(rows)
        with encoder_source(self.encoder) as source:
            self.model = self._setfit.SetFitModel.from_pretrained(source)
        self.model.model_body.max_seq_length = _SETFIT_TOKENS
        with TemporaryDirectory() as folder:
            arguments = self._setfit.TrainingArguments(
                output_dir=folder,
                num_iterations=1,
                num_epochs=1,
                seed=self.seed,
                report_to="none",
                save_strategy="no",
            )
            self._setfit.Trainer(self.model, arguments, dataset).train()

    def predict(self, articles: Articles) -> list[list[Label]]:
        """Return a label for every sentence, each read alone."""
        found = iter(self.model.predict(texts_of(articles), as_numpy=True))
        return [[LABELS[int(next(found))] for _ in article.sentences] for article in articles]


def peers(*, seed: int = 0, encoder: str = "minilm") -> list[StaticLogistic | SetFit]:
    """Return the baselines of other libraries, the weaker first."""
    return [StaticLogistic(seed=seed, encoder=encoder), SetFit(seed=seed, encoder=encoder)]


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise SaysoError(f"{name}: cannot be imported ({error}); pip install 'sayso[peers]'") from None
