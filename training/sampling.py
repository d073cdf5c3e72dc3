"""Articles -> the windows of an epoch, with their targets, in the order in which they are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from serving.labels import LABELS, VOICES
from serving.windows import EncodedArticle, Window, Windows, collate, plan
from training.config import Config
from training.corpus import LabelledArticle, Sentence
from training.model import IGNORE
from training.names import NameSwaps

# Windows of like length are batched together within groups of so many batches, so that order stays random.
_BATCHES_PER_GROUP = 50


@dataclass(frozen=True, slots=True)
class Example:
    """A window and its sentences' targets: columns voice, doubt and label, shape (s, 3); a teacher's scores (s, 4)."""

    window: Window
    targets: NDArray[np.int64]
    soft: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Cut:
    """The sentences ``block`` of an article, whether its title is shown, and whether others' names are."""

    article: int
    block: range
    titled: bool = True
    swapped: bool = False


class EncodedCorpus:
    """Labelled articles, tokenised once; with ``swaps`` a second time with other names in them.

    ``soft`` are a teacher's scores by article, (sentences, 4) each, zeros where it has none.
    """

    def __init__(
        self,
        articles: Sequence[LabelledArticle],
        windows: Windows,
        swaps: NameSwaps | None = None,
        soft: Sequence[NDArray[np.float32]] | None = None,
    ) -> None:
        plain = [a.unlabelled() for a in articles]
        self.windows = windows
        self.articles = [windows.encode(article) for article in plain]
        self.swapped = (
            [windows.encode(swaps.swap(a, Random(i))) for i, a in enumerate(plain)] if swaps else []
        )
        self.targets = [np.array([_target(s) for s in a.sentences], dtype=np.int64) for a in articles]
        self.soft = soft or [np.zeros((len(targets), len(LABELS)), np.float32) for targets in self.targets]

    def encoded(self, article: int, *, swapped: bool) -> EncodedArticle:
        """Return an article, with its own names or with others."""
        return (self.swapped if swapped else self.articles)[article]

    def example(self, cut: Cut) -> Example:
        """Return the window over a cut."""
        article = self.encoded(cut.article, swapped=cut.swapped)
        if not cut.titled:
            article = EncodedArticle([], article.sentences, article.truncated)
        block = slice(cut.block.start, cut.block.stop)
        targets, soft = self.targets[cut.article][block], self.soft[cut.article][block]
        return Example(self.windows.window(article, cut.block), targets, soft)

    def reading(self, *, context: bool = True) -> list[Example]:
        """Return the examples that the predictor would read, each sentence's target once, elsewhere ignored."""
        if not context:
            return [self.example(Cut(i, range(j, j + 1), titled=False)) for i, j in self.positions()]
        return [
            self._read_once(index, window)
            for index, article in enumerate(self.articles)
            for window in self.windows.cut(article)
        ]

    def positions(self) -> list[tuple[int, int]]:
        """Return (article, sentence) for every sentence."""
        return [(i, j) for i, article in enumerate(self.articles) for j in range(len(article.sentences))]

    def _read_once(self, index: int, window: Window) -> Example:
        shown = slice(window.first, window.first + len(window.spans))
        targets = np.full((len(window.spans), 3), IGNORE, dtype=np.int64)
        read = slice(window.read.start - window.first, window.read.stop - window.first)
        targets[read] = self.targets[index][shown][read]
        return Example(window, targets, np.zeros((len(targets), len(LABELS)), np.float32))


class TrainingEpochs(Dataset[list[Example]]):
    """The items of the current epoch in training order; each item is a joint window or a pack of lone sentences.

    Every epoch cuts the articles anew, without overlap, at other places: no sentence is paid for twice, and over
    the epochs each is seen with different neighbours. A share of the articles is shown with other names, and a
    share of the sentences alone besides. The number of items is the same in every epoch, since the learning-rate
    schedule needs it: a few lone sentences more make up for an epoch with fewer windows.
    """

    def __init__(self, corpus: EncodedCorpus, config: Config) -> None:
        self.corpus = corpus
        self.config = config
        self._pack = max(
            1, config.max_tokens // 40
        )  # lone sentences that weigh about as much as a joint window
        windows = max(len(self._cuts(epoch)) for epoch in range(config.epochs))
        share = config.alone_share if config.context else 1.0
        lone = share * len(corpus.positions()) / self._pack
        size = config.batch_size
        self._batch_count = max(1, ceil(windows / size) + ceil(lone / size))
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Lay out the epoch: batches of like items in random order. The data loader calls this."""
        random = Random(f"{self.config.seed}-{epoch}-order")
        batches = self._batches([self.corpus.example(cut) for cut in self._cuts(epoch)])
        batches += self._lone_batches(self._batch_count - len(batches), random)
        random.shuffle(batches)
        self._items = [item for batch in batches for item in batch]

    def __len__(self) -> int:
        return self._batch_count * self.config.batch_size

    def __getitem__(self, index: int) -> list[Example]:
        return self._items[index]

    def _cuts(self, epoch: int) -> list[Cut]:
        """Return the epoch's joint windows in random order."""
        if not self.config.context:
            return []
        random = Random(f"{self.config.seed}-{epoch}-cuts")
        cuts = []
        for index in range(len(self.corpus.articles)):
            swapped = self._is_swapped(random)
            article = self.corpus.encoded(index, swapped=swapped)
            lengths = [len(s) + 1 for s in article.sentences]
            capacity = self.corpus.windows.capacity(article)
            first = random.randint(capacity // 4, capacity) if sum(lengths) > capacity else None
            for block in plan(lengths, capacity, overlap=0, first=first):
                titled = random.random() >= self.config.title_dropout
                cuts.append(Cut(index, block, titled, swapped))
        random.shuffle(cuts)
        return cuts

    def _is_swapped(self, random: Random) -> bool:
        return bool(self.corpus.swapped) and random.random() < self.config.name_swaps

    def _batches(self, examples: list[Example]) -> list[list[list[Example]]]:
        size = self.config.batch_size
        batches = []
        for start in range(0, len(examples), size * _BATCHES_PER_GROUP):
            group = sorted(
                examples[start : start + size * _BATCHES_PER_GROUP], key=lambda e: -e.window.length
            )
            batches += [[[e] for e in group[i : i + size]] for i in range(0, len(group), size)]
        if batches and len(batches[-1]) < size:  # a full last batch keeps the items aligned with the batches
            batches[-1] += [[e] for e in islice(cycle(examples), size - len(batches[-1]))]
        return batches

    def _lone_batches(self, count: int, random: Random) -> list[list[list[Example]]]:
        size = self.config.batch_size
        positions = self.corpus.positions()
        random.shuffle(positions)
        wanted = count * size * self._pack
        positions = (positions * (1 + wanted // max(1, len(positions))))[:wanted]
        cuts = [Cut(i, range(j, j + 1), titled=False, swapped=self._is_swapped(random)) for i, j in positions]
        examples = [self.corpus.example(cut) for cut in cuts]
        examples.sort(key=lambda e: e.window.length)
        packs = [examples[i : i + self._pack] for i in range(0, len(examples), self._pack)]
        return [packs[i : i + size] for i in range(0, len(packs), size)]


class Collator:
    """Pads the examples of a batch into the tensors that ``Objective.forward`` takes."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, items: Sequence[Example | list[Example]]) -> dict[str, Tensor]:
        examples = [e for item in items for e in (item if isinstance(item, list) else [item])]
        batch = collate([e.window for e in examples], pad_id=self.pad_id)
        shape = (len(examples), batch.pooling.shape[1])
        targets = np.full((*shape, 3), IGNORE, dtype=np.int64)
        soft = np.zeros((*shape, len(LABELS)), dtype=np.float32)
        for row, example in enumerate(examples):
            targets[row, : len(example.targets)] = example.targets
            soft[row, : len(example.soft)] = example.soft
        voice, doubt, label = torch.from_numpy(targets).unbind(-1)
        return {
            "input_ids": torch.from_numpy(batch.input_ids),
            "attention_mask": torch.from_numpy(batch.attention_mask),
            "pooling": torch.from_numpy(batch.pooling),
            "voice": voice.contiguous(),
            "doubt": doubt.contiguous(),
            "label": label.contiguous(),
            "soft": torch.from_numpy(soft),
        }


def _target(sentence: Sentence) -> tuple[int, int, int]:
    voice = IGNORE if sentence.voice is None else VOICES.index(sentence.voice)
    doubt = IGNORE if sentence.doubt is None else int(sentence.doubt)
    return voice, doubt, LABELS.index(sentence.label)
