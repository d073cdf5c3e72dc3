"""Behavioural tests (CheckList, Ribeiro et al. 2020): what a reader must get right, whatever the averages say.

A case has one article or more, each with a target sentence and its right label, and passes by its kind: ``label`` and
``direction`` when every target gets its label (in a direction the labels differ), ``invariance`` when all targets get
the same label, for what differs between the articles must not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from serving.errors import SaysoError
from serving.labels import Label
from serving.predictor import Article
from training.evaluation import Reader

CASES = "behaviour.jsonl"


class Target(BaseModel):
    """An article, and the label of its ``target``-th sentence, from 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    sentences: tuple[str, ...] = Field(min_length=1)
    target: PositiveInt
    label: Label

    @model_validator(mode="after")
    def _in_range(self) -> Target:
        if self.target > len(self.sentences):
            raise ValueError(f"target {self.target} of {len(self.sentences)} sentences")
        return self


class Case(BaseModel):
    """A behaviour that a model shows or fails to show."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    capability: str
    kind: Literal["label", "invariance", "direction"]
    note: str
    articles: tuple[Target, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> Case:
        articles, labels = len(self.articles), len({a.label for a in self.articles})
        right = {"label": articles == 1, "invariance": articles > labels == 1, "direction": labels > 1}
        if not right[self.kind]:
            raise ValueError(f"{articles} article(s) with {labels} label(s) are no case of kind {self.kind}")
        return self

    def passes(self, answers: Sequence[Label]) -> bool:
        """Return whether the answers to the targets are as the kind wants them."""
        if self.kind == "invariance":
            return len(set(answers)) == 1
        return all(a is target.label for a, target in zip(answers, self.articles, strict=True))


@dataclass(frozen=True)
class Failure:
    """A case with the answers that it got."""

    case: Case
    answers: tuple[Label, ...]


@dataclass(frozen=True)
class Behaviour:
    """How many ``cases`` each capability has, in the order of the file, and those that failed."""

    cases: Mapping[str, int]
    failures: Sequence[Failure]

    @property
    def failed(self) -> dict[str, int]:
        """The number of failed cases by capability."""
        counts = Counter(failure.case.capability for failure in self.failures)
        return {capability: counts[capability] for capability in self.cases}


def read_cases(path: Path) -> list[Case]:
    """Return the cases of a JSONL file; raises SaysoError that names the line of a malformed one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SaysoError(f"{path}: cannot be read ({error}); check the path") from None
    cases = []
    for number, line in enumerate(lines, start=1):
        try:
            cases.append(Case.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise SaysoError(f"{path}:{number}: {place}: {first['msg']}") from None
    return cases


def run(reader: Reader, cases: Sequence[Case]) -> Behaviour:
    """Return how a model fares."""
    articles = [Article(target.sentences, target.title) for case in cases for target in case.articles]
    predictions = iter(reader.predict(articles))
    failures = []
    for case in cases:
        answers = tuple(next(predictions)[target.target - 1].label for target in case.articles)
        if not case.passes(answers):
            failures.append(Failure(case, answers))
    return Behaviour(Counter(case.capability for case in cases), failures)
