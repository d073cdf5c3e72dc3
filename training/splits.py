"""Articles -> train, validation and test; never a sentence, a pair or a beat on two sides."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from serving.errors import SaysoError
from serving.labels import LABELS
from training.corpus import COLUMNS, LabelledArticle, read_articles

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
SEED = 2
_MAX_PASSES = 50
WRITTEN_COLUMNS = (*COLUMNS, "writer", "beat", "register", "place", "pair", "role")
"""The columns of the written corpus, null where a part has none."""


@dataclass(frozen=True)
class Splits:
    """The three splits of a corpus, each in the order of the file it came from."""

    train: list[LabelledArticle]
    validation: list[LabelledArticle]
    test: list[LabelledArticle]


def read_written(folder: Path | None = None) -> Splits:
    """Return the written corpus as it is shipped, by default from ``datasets/`` of the repository."""
    folder = _written_folder() if folder is None else folder
    paths = {name: folder / f"{name}.jsonl" for name in SHARES}
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise SaysoError(f"no written corpus: {', '.join(missing)} not found; {_WHERE}")
    return Splits(**{name: read_articles([path]) for name, path in paths.items()})


def split_articles(articles: Sequence[LabelledArticle]) -> Splits:
    """Return the articles of the written corpus in the splits that ``assign`` gives them."""
    split_of = assign(articles)
    return Splits(**{name: [a for a in articles if split_of[a.id] == name] for name in SHARES})


def write_written(source: Path, folder: Path) -> None:
    """Write the rows of the written corpus in ``source`` (JSONL) to one file a split in ``folder``."""
    split_of = assign(read_articles([source]))
    lines: dict[str, list[str]] = {name: [] for name in SHARES}
    for line in source.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        whole = {column: row.get(column) for column in WRITTEN_COLUMNS}
        lines[split_of[row["article_id"]]].append(json.dumps(whole, ensure_ascii=False) + "\n")
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8", newline="\n")


def split_off(
    articles: Sequence[LabelledArticle], *, share: float, seed: int
) -> tuple[list[LabelledArticle], list[LabelledArticle]]:
    """Return (rest, split off), both in the given order, whole articles stratified by their commonest label.

    An article goes by its id and the seed, not by where it stands.
    """
    count = min(max(1, round(len(articles) * share)), len(articles) - 1)
    if count < 1 or not 0 < share < 1:
        what = f"a share of {share} off {len(articles)} article(s)"
        raise SaysoError(f"cannot split {what}; expected a share between 0 and 1, and two articles or more")
    ranked = sorted(articles, key=lambda a: (LABELS.index(_commonest_label(a)), _rank(a.id, seed)))
    # Every n-th of the articles ranked by label: each label gives its share, the rare ones together theirs.
    off = {ranked[int((k + 0.5) * len(ranked) / count)].id for k in range(count)}
    return [a for a in articles if a.id not in off], [a for a in articles if a.id in off]


def assign(articles: Iterable[LabelledArticle], *, seed: int = SEED) -> dict[str, str]:
    """Return the split of every article by id: 80 / 10 / 10, whole beats, stratified.

    Articles that share a beat or a pair go together. Groups are dealt one by one, the largest first, to the
    split that leaves registers, writers, labels and voices nearest to their shares; then single groups move
    as long as that improves. The same articles in any order give the same answer.
    """
    ordered = sorted(articles, key=lambda a: _rank(a.id, seed))
    if not ordered:
        return {}
    names, group_of = list(SHARES), _groups(ordered)
    split_of = _deal(_amounts(ordered, group_of))
    return {a.id: names[split_of[group]] for a, group in zip(ordered, group_of, strict=True)}


_WHERE = "run in the repository, or pass the folder that holds its datasets/*.jsonl"


def written_file(name: str) -> Path:
    """Return a file of the repository's ``datasets/``."""
    return _written_folder() / name


def _written_folder() -> Path:
    candidates = [Path("datasets"), Path(__file__).parents[1] / "datasets"]
    for folder in candidates:
        if (folder / "train.jsonl").is_file():
            return folder
    raise SaysoError(f"no written corpus: no datasets/train.jsonl here or beside the package; {_WHERE}")


def _commonest_label(article: LabelledArticle) -> str:
    return Counter(s.label for s in article.sentences).most_common(1)[0][0]


def _rank(article_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{article_id}".encode()).digest()


def _groups(articles: Sequence[LabelledArticle]) -> NDArray[np.int64]:
    """Return the group of every article, shape (n,): a beat, or beats that pairs link."""
    keys = [[f"{k}={a.meta[k]}" for k in ("beat", "pair") if k in a.meta] for a in articles]
    number = {key: i for i, key in enumerate(dict.fromkeys(key for ks in keys for key in ks), len(articles))}
    edges = [(i, number[key]) for i, ks in enumerate(keys) for key in ks]
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    nodes = len(articles) + len(number)
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(nodes, nodes))
    return np.unique(connected_components(graph, directed=False)[1][: len(articles)], return_inverse=True)[1]


def _features(article: LabelledArticle) -> Counter[tuple[str, str]]:
    """Return what of an article is to be spread evenly: a family, a member of it, and how much."""
    counts = Counter({("size", "articles"): 1, ("size", "sentences"): len(article.sentences)})
    counts.update((family, article.meta.get(family, "")) for family in ("register", "writer"))
    counts.update(("label", s.label) for s in article.sentences)
    counts.update(("voice", f"{s.voice} {s.doubt}") for s in article.sentences)
    return counts


def _amounts(articles: Sequence[LabelledArticle], group_of: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each group's share of each feature, weighted so that every family counts alike: (groups, f)."""
    features = [_features(article) for article in articles]
    index = {key: i for i, key in enumerate(sorted(set().union(*features)))}
    amounts = np.zeros((group_of.max() + 1, len(index)))
    for group, counts in zip(group_of, features, strict=True):
        for key, amount in counts.items():
            amounts[group, index[key]] += amount
    families = Counter(family for family, _ in index)
    return amounts / amounts.sum(axis=0) / np.sqrt([families[family] for family, _ in index])


def _deal(amounts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return a split for each group, shape (groups,), such that splits are near their shares everywhere."""
    shares = np.array(list(SHARES.values()))
    missing = np.outer(shares, amounts.sum(axis=0))
    split_of = np.full(len(amounts), -1)
    largest_first = np.argsort(-amounts.sum(axis=1), kind="stable")
    for _ in range(_MAX_PASSES):
        before = split_of.copy()
        for group in largest_first:
            if split_of[group] >= 0:
                missing[split_of[group]] += amounts[group]
            split_of[group] = _neediest(missing, amounts[group], shares)
            missing[split_of[group]] -= amounts[group]
        if np.array_equal(before, split_of):
            break
    return split_of


def _neediest(missing: NDArray[np.float64], amount: NDArray[np.float64], shares: NDArray[np.float64]) -> int:
    """Return the split whose squared distance from its share falls most when it gets ``amount``."""
    gain = (missing**2 - (missing - amount) ** 2).sum(axis=1) / shares
    # Rounded, so that the last bit of a sum never decides.
    return int(np.round(gain, 12).argmax())
