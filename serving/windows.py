"""Sentences -> token windows -> sentence positions; the same code for training, the service and archives.

An article becomes one or more windows ``[CLS] title [SEP] s1 [SEP] s2 [SEP] …`` of at most ``max_tokens`` tokens.
The encoder passes over a window once, and each sentence is classified from the mean of its own tokens, its closing
separator included (so that even an empty sentence has one). Long articles overlap by a few sentences, and a
sentence is read in the window where it has most context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

# No sentence needs more characters than this to fill the largest window; what lies beyond is never tokenised.
_MAX_CHARS_PER_TOKEN = 64


@dataclass(frozen=True)
class Limits:
    """The shape of a window: sizes in tokens, the overlap in sentences.

    ``lede_tokens`` of the article's beginning stand before the sentences of every later window, which else would not
    know whose matter it is.
    """

    max_tokens: int = 384
    overlap: int = 2
    title_tokens: int = 32
    lede_tokens: int = 0

    def __post_init__(self) -> None:
        if (
            not self.max_tokens >= 16
            or min(self.title_tokens, self.lede_tokens) < 0
            or self.title_tokens + self.lede_tokens > self.max_tokens // 2
            or self.overlap < 0
        ):
            raise ValueError(f"limits that leave no room for a sentence: {self}")


@dataclass(frozen=True)
class Article:
    """Consecutive sentences that are read in each other's sight; a lone sentence is an article of one."""

    sentences: Sequence[str]
    title: str = ""


@dataclass(frozen=True)
class EncodedArticle:
    """An article's token ids without special tokens, cut to what a window can hold."""

    title: list[int]
    sentences: list[list[int]]
    truncated: list[bool]


@dataclass(frozen=True, slots=True)
class Window:
    """Some consecutive sentences of an article as one input of the encoder.

    ``spans`` are the sentences' half-open token positions, ``first`` is the first sentence's index in the article,
    and ``read`` holds the indexes (in the article) of the sentences that are answered from this window.
    """

    token_ids: list[int]
    spans: list[tuple[int, int]]
    first: int
    read: range
    truncated: list[bool]

    @property
    def length(self) -> int:
        """The number of tokens, special tokens included."""
        return len(self.token_ids)


@dataclass(frozen=True)
class Batch:
    """Padded windows: ``input_ids`` and ``attention_mask`` (b, t) int64, ``pooling`` (b, s, t) float32.

    Row ``pooling[b, s]`` averages over the tokens of window b's sentence s; padding rows are zero.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    pooling: NDArray[np.float32]

    def unpadded(self) -> dict[str, NDArray[Any]]:
        """Return the inputs of an exported network, which knows of no padding: the windows are equally long."""
        return {"input_ids": self.input_ids, "pooling": self.pooling}


class Windows:
    """Cuts articles into windows with a tokenizer whose vocabulary has [CLS] and [SEP] (or <s> and </s>)."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.limits = limits
        self.cls = _special(tokenizer, "[CLS]", "<s>")
        self.sep = _special(tokenizer, "[SEP]", "</s>")

    def encode(self, article: Article) -> EncodedArticle:
        """Return the article's token ids, the title and over-long sentences truncated."""
        longest = self.limits.max_tokens - self.limits.title_tokens - self._lede_room - 3
        texts = [article.title, *article.sentences]
        max_chars = longest * _MAX_CHARS_PER_TOKEN
        # A lone surrogate, which no text file can hold, would be refused by the tokenizer.
        clean = [t[:max_chars].encode("utf-8", "replace").decode("utf-8") for t in texts]
        encodings = self.tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        title, *sentences = [encoding.ids for encoding in encodings]
        truncated = [
            len(s) > longest or len(t) > max_chars for s, t in zip(sentences, article.sentences, strict=True)
        ]
        return EncodedArticle(title[: self.limits.title_tokens], [s[:longest] for s in sentences], truncated)

    def cut(self, article: EncodedArticle) -> list[Window]:
        """Return the overlapping windows that together read every sentence once."""
        lengths = [len(s) + 1 for s in article.sentences]
        blocks = plan(lengths, self.capacity(article), overlap=self.limits.overlap)
        reads = assign(lengths, blocks)
        return [self.window(article, block, read) for block, read in zip(blocks, reads, strict=True) if read]

    def capacity(self, article: EncodedArticle) -> int:
        """Return how many tokens a window has for sentences and their separators."""
        title = len(article.title) + 1 if article.title else 0
        return self.limits.max_tokens - 1 - title - self._lede_room

    def window(self, article: EncodedArticle, block: range, read: range | None = None) -> Window:
        """Return the window over the sentences ``block``, of which ``read`` (default: all) are answered."""
        ids = [self.cls, *article.title, self.sep] if article.title else [self.cls]
        ids += self._lede(article, block)
        spans = []
        for index in block:
            begin = len(ids)
            ids += article.sentences[index]
            ids.append(self.sep)
            spans.append((begin, len(ids)))
        truncated = article.truncated[block.start : block.stop]
        return Window(ids, spans, block.start, block if read is None else read, truncated)

    @property
    def _lede_room(self) -> int:
        return self.limits.lede_tokens + 1 if self.limits.lede_tokens else 0

    def _lede(self, article: EncodedArticle, block: range) -> list[int]:
        """Return the beginning of the article as far as it lies before the block, closed by a separator."""
        before = chain.from_iterable(article.sentences[: block.start])
        lede = list(islice(before, self.limits.lede_tokens))
        return [*lede, self.sep] if lede else []


def plan(lengths: Sequence[int], capacity: int, *, overlap: int, first: int | None = None) -> list[range]:
    """Return blocks of consecutive sentences, each within ``capacity`` tokens, that cover all sentences in order.

    ``lengths`` are the sentences' tokens. Neighbouring blocks share up to ``overlap`` sentences, fewer where the
    next sentence would not fit. ``first`` is a smaller capacity for the first block (training moves the cuts so).
    """
    blocks: list[range] = []
    start = stop = 0
    while stop < len(lengths):
        room = capacity if blocks or first is None else first
        new_start = max(stop - overlap, start + 1) if blocks else 0
        while new_start < stop and sum(lengths[new_start : stop + 1]) > room:
            new_start += 1
        start, used = new_start, sum(lengths[new_start:stop])
        while stop < len(lengths) and (used + lengths[stop] <= room or stop == start):
            used += lengths[stop]
            stop += 1
        blocks.append(range(start, stop))
    return blocks


def assign(lengths: Sequence[int], blocks: Sequence[range]) -> list[range]:
    """Return for each block the sentences that are read there: those with more context than in the other block.

    Context is the smaller of the tokens to the left and to the right; at the article's ends nothing is missing.
    """
    if not blocks:
        return []
    offsets = [0, *accumulate(lengths)]
    cuts = [0]
    for left, right in pairwise(blocks):
        middle = (offsets[right.start] + offsets[left.stop]) / 2
        shared = range(right.start, left.stop)
        centres = [(offsets[i] + offsets[i + 1]) / 2 for i in shared]
        cuts.append(right.start + sum(centre < middle for centre in centres))
    cuts.append(len(lengths))
    return [range(a, b) for a, b in pairwise(cuts)]


def collate(windows: Sequence[Window], *, pad_id: int = 0) -> Batch:
    """Return the windows as one padded batch."""
    length = max(w.length for w in windows)
    sentences = max(len(w.spans) for w in windows)
    input_ids = np.full((len(windows), length), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(windows), length), dtype=np.int64)
    pooling = np.zeros((len(windows), sentences, length), dtype=np.float32)
    for row, window in enumerate(windows):
        input_ids[row, : window.length] = window.token_ids
        attention_mask[row, : window.length] = 1
        for index, (begin, end) in enumerate(window.spans):
            pooling[row, index, begin:end] = 1 / (end - begin)
    return Batch(input_ids, attention_mask, pooling)


def _special(tokenizer: Tokenizer, *names: str) -> int:
    for name in names:
        if (token_id := tokenizer.token_to_id(name)) is not None:
            return int(token_id)
    raise ValueError(
        f"the tokenizer has none of {', '.join(names)}; Sayso needs a BERT- or RoBERTa-like vocabulary"
    )
