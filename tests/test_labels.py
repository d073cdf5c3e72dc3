"""The guide's rule, once by name and once for scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.labels import LABELS, VOICES, Label, Voice, label_of, label_scores


@pytest.mark.parametrize(
    ("voice", "doubt", "label"),
    [
        (Voice.PARTY, False, Label.OFFICIAL_CLAIM),
        (Voice.PARTY, True, Label.OFFICIAL_CLAIM),
        (Voice.OUTSIDE, False, Label.THIRD_PARTY_ASSESSMENT),
        (Voice.OUTSIDE, True, Label.THIRD_PARTY_ASSESSMENT),
        (Voice.EXPERT, False, Label.THIRD_PARTY_ASSESSMENT),
        (Voice.EXPERT, True, Label.EXPERT_SKEPTICISM),
        (Voice.PRIVATE, True, Label.OTHER),
        (Voice.NONE, False, Label.OTHER),
    ],
)
def test_a_label_follows_from_voice_and_doubt_as_in_the_guide(
    voice: Voice, doubt: bool, label: Label
) -> None:
    assert label_of(voice, doubt) is label


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("doubt", [False, True])
def test_certain_scores_give_the_rules_label(voice: Voice, doubt: bool) -> None:
    scores = label_scores(np.array([[v is voice for v in VOICES]], float), np.array([float(doubt)]))
    assert LABELS[int(scores[0].argmax())] is label_of(voice, doubt)
    assert scores[0].max() == 1


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5).filter(lambda x: sum(x) > 1e-6), st.floats(0, 1))
def test_label_scores_are_probabilities(voice: list[float], doubt: float) -> None:
    scores = label_scores(np.array([voice]) / sum(voice), np.array([doubt]))
    assert scores.shape == (1, 4)
    assert (scores >= 0).all()
    assert scores.sum() == pytest.approx(1)
