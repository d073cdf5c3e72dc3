"""Cheap baselines, and one table of them and of trained models on the same data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize

from serving.errors import SaysoError
from serving.labels import Label
from training import metrics
from training.corpus import LabelledArticle
from training.evaluation import Reader, article_confusion, read
from training.model import new_network
from training.report import comparison_lines, comparison_row

Articles = Sequence[LabelledArticle]

_ENCODER_TOKENS = 256  # what the packaged encoder was trained with
_BATCH = 64  # sentences


class Baseline(Protocol):
    """A row of the comparison that is trained for it."""

    name: str

    def fit(self, train: Articles, validation: Articles) -> None:
        """Learn from ``train``; choose what is to be chosen by macro-F1 on ``validation``."""

    def predict(self, articles: Articles) -> list[list[Label]]:
        """Return a label for every sentence of every article."""


@dataclass(frozen=True)
class PredictorRow:
    """A row of the comparison that is trained already; ``alone`` shows it every sentence by itself."""

    name: str
    predictor: Reader
    alone: bool = False
    training_seconds: float | None = None

    def predict(self, articles: Articles) -> list[list[Label]]:
        """Return a label for every sentence of every article."""
        return [[p.label for p in row] for row in read(self.predictor, articles, alone=self.alone)]


class Majority:
    """The commonest label of the training data for every sentence."""

    name = "majority"

    def fit(self, train: Articles, validation: Articles) -> None:
        """Count."""
        labels = labels_of(train)
        if not labels:
            raise SaysoError("no labelled sentence to train on; give training data that holds some")
        self.label = Counter(labels).most_common(1)[0][0]

    def predict(self, articles: Articles) -> list[list[Label]]:
        """Return that label everywhere."""
        return [[self.label] * len(article.sentences) for article in articles]


class LogisticBaseline:
    """Logistic regression over features of lone sentences, its C chosen on validation."""

    name: str
    grid: tuple[float, ...]

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, train: Articles, validation: Articles) -> None:
        """Fit one classifier for each C of the grid and keep the best; the middle one without validation."""
        gold = labels_of(train)
        if (found := len(set(gold))) < 2:
            raise SaysoError(f"{self.name}: found {found} label(s) to train on; expected two or more")
        features = self.learn_features(texts_of(train))
        if not texts_of(validation):
            self.classifier = self._classifier(self.grid[len(self.grid) // 2]).fit(features, gold)
            return
        unseen, right = self.features(texts_of(validation)), labels_of(validation)
        fitted = [self._classifier(c).fit(features, gold) for c in self.grid]
        self.classifier = max(fitted, key=lambda found: metrics.macro_f1(right, found.predict(unseen)))

    def predict(self, articles: Articles) -> list[list[Label]]:
        """Return a label for every sentence, each read alone."""
        texts = texts_of(articles)
        found = iter(self.classifier.predict(self.features(texts)) if texts else ())
        return [[Label(next(found)) for _ in article.sentences] for article in articles]

    @property
    def c(self) -> float:
        """The inverse regularisation strength that was chosen."""
        return float(self.classifier.C)

    def learn_features(self, texts: Sequence[str]) -> Any:
        """Learn from the training texts what is to be learnt, and return their features, shape (n, f)."""
        return self.features(texts)

    def features(self, texts: Sequence[str]) -> Any:
        """Return the features of unseen texts, shape (n, f)."""
        raise NotImplementedError

    def _classifier(self, c: float) -> LogisticRegression:
        return LogisticRegression(C=c, class_weight="balanced", max_iter=2000, random_state=self.seed)


class TfidfLogistic(LogisticBaseline):
    """TF-IDF of single words and pairs of neighbours, with logistic regression."""

    name = "TF-IDF + logistic regression"
    grid = (1.0, 10.0, 100.0)

    def learn_features(self, texts: Sequence[str]) -> Any:
        """Return the training texts' features over the vocabulary that they make."""
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        try:
            return self.vectorizer.fit_transform(texts)
        except ValueError:  # the only one that texts can cause: an empty vocabulary
            raise SaysoError(f"{self.name}: no words in the training texts; expected sentences") from None

    def features(self, texts: Sequence[str]) -> Any:
        """Return features over the training texts' vocabulary."""
        return self.vectorizer.transform(texts)


class FrozenEncoderLogistic(LogisticBaseline):
    """The encoder as it comes, each lone sentence the mean of its tokens, with logistic regression."""

    name = "frozen encoder + logistic regression"
    grid = (1.0, 3.0, 10.0, 30.0)

    def __init__(
        self, *, seed: int = 0, encoder: str = "minilm", progress: Callable[[int], None] | None = None
    ) -> None:
        super().__init__(seed=seed)
        self.progress = progress
        network = new_network(encoder, dropout=0.0, encoder_dropout=0.0)
        self.encoder, self.pad_id = network.classifier.encoder.eval(), network.pad_id
        self.tokenizer = network.tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(_ENCODER_TOKENS)

    def features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of unit length, shape (n, hidden size)."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        longest_first = np.argsort([-len(tokens) for tokens in ids], kind="stable")
        embedded = []
        for start in range(0, len(ids), _BATCH):
            batch = longest_first[start : start + _BATCH]
            embedded.append(self._embed([ids[i] for i in batch]))
            if self.progress is not None:
                self.progress(len(batch))
        return np.asarray(np.concatenate(embedded)[np.argsort(longest_first)])

    @torch.no_grad()
    def _embed(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        padded = torch.full((len(ids), max(map(len, ids))), self.pad_id)
        mask = torch.zeros_like(padded)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        hidden = self.encoder(input_ids=padded, attention_mask=mask).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        embedded: NDArray[np.float32] = normalize(mean, dim=-1).numpy()
        return embedded


def cheap_baselines(*, seed: int = 0, encoder: str = "minilm") -> list[Baseline]:
    """Return the baselines that train within minutes, the weakest first."""
    return [Majority(), TfidfLogistic(seed=seed), FrozenEncoderLogistic(seed=seed, encoder=encoder)]


@dataclass(frozen=True)
class Score:
    """Macro-F1 on one data set, with its interval over articles."""

    macro_f1: float
    macro_f1_interval: metrics.Interval


@dataclass(frozen=True)
class ComparedRow:
    """One row's scores by data set; ``training_seconds`` is None where it is not known."""

    name: str
    datasets: Mapping[str, Score]
    training_seconds: float | None


@dataclass(frozen=True)
class Comparison:
    """The table of ``compare``; ``about`` says what the rows were trained on."""

    datasets: tuple[str, ...]
    rows: tuple[ComparedRow, ...]
    about: str = field(default="")

    def as_dict(self) -> dict[str, Any]:
        """Return the table as report.json holds it."""
        return asdict(self)

    def markdown(self) -> str:
        """Return the table in Markdown."""
        return "\n".join(comparison_lines(self.as_dict()))

    def table(self) -> Table:
        """Return the table for a terminal."""
        headers = ["", *(f"{name}: macro-F1" for name in self.datasets), "training"]
        table = Table(*headers, caption=self.about or None)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in self.as_dict()["rows"]:
            table.add_row(*comparison_row(row, self.datasets))
        return table


def compare(
    rows: Iterable[Baseline | PredictorRow],
    datasets: Mapping[str, Articles],
    *,
    train: Articles,
    validation: Articles,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Return the macro-F1 of every row on every data set; baselines are trained first.

    ``say`` gets a line when a row is done. Rows are taken one by one: a generator may load one at a time.
    """
    for name, articles in datasets.items():
        if not texts_of(articles):
            raise SaysoError(f"{name}: no labelled sentence to compare on; give data that holds some")
    done: list[ComparedRow] = []
    for row in rows:
        seconds = row.training_seconds if isinstance(row, PredictorRow) else _fit(row, train, validation)
        done.append(ComparedRow(row.name, {n: _score(row, a) for n, a in datasets.items()}, seconds))
        say(" · ".join(comparison_row(asdict(done[-1]), list(datasets))))
    return Comparison(tuple(datasets), tuple(done), about=_about(train, validation))


def _fit(row: Baseline, train: Articles, validation: Articles) -> float:
    started = time.perf_counter()
    row.fit(train, validation)
    return time.perf_counter() - started


def _score(row: Baseline | PredictorRow, articles: Articles) -> Score:
    counts = article_confusion(articles, row.predict(articles))
    return Score(float(metrics.macro_f1_of(counts.sum(axis=0))), metrics.macro_f1_interval(counts))


def _about(train: Articles, validation: Articles) -> str:
    learnt, tuned = len(texts_of(train)), len(texts_of(validation))
    return f"Baselines read lone sentences: trained on {learnt:,}, their C chosen on {tuned:,}."


def texts_of(articles: Articles) -> list[str]:
    """Return the sentences of all articles in order."""
    return [sentence.text for article in articles for sentence in article.sentences]


def labels_of(articles: Articles) -> list[Label]:
    """Return their labels."""
    return [sentence.label for article in articles for sentence in article.sentences]
