"""The rows that other libraries train."""

from __future__ import annotations

import sys

import pytest
from test_baselines import toy

from serving.errors import SaysoError
from serving.labels import LABELS
from training.peers import SetFit, StaticLogistic


@pytest.mark.parametrize(("row", "module"), [(SetFit, "setfit"), (StaticLogistic, "model2vec.distill")])
def test_a_missing_library_is_told_how_to_get(
    monkeypatch: pytest.MonkeyPatch, row: type[SetFit] | type[StaticLogistic], module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SaysoError, match=rf"{module}: .*pip install 'sayso\[peers\]'"):
        row().fit(toy(2, seed=1), [])


def test_setfit_answers_every_sentence_with_a_label() -> None:
    pytest.importorskip("setfit", reason="pip install 'sayso[peers]'")
    row = SetFit()
    row.fit(toy(1, seed=1), [])
    unseen = toy(2, seed=2)
    found = row.predict(unseen)
    assert [len(labels) for labels in found] == [len(article.sentences) for article in unseen]
    assert {label for labels in found for label in labels} <= set(LABELS)
