"""Labels, voices, and the annotation guide's rule that derives one from the other."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Label(StrEnum):
    """Who stands behind a sentence."""

    OFFICIAL_CLAIM = "official_claim"
    THIRD_PARTY_ASSESSMENT = "third_party_assessment"
    EXPERT_SKEPTICISM = "expert_skepticism"
    OTHER = "other"


class Voice(StrEnum):
    """Whose voice a sentence carries."""

    PARTY = "party"
    OUTSIDE = "outside"
    EXPERT = "expert"
    PRIVATE = "private"
    NONE = "none"


# Answers round scores to this many digits: the rest is noise, and costs bytes.
SCORE_DIGITS = 6

LABELS: tuple[Label, ...] = tuple(Label)
VOICES: tuple[Voice, ...] = tuple(Voice)


def label_of(voice: Voice, doubt: bool) -> Label:
    """Return the label that the guide derives from a voice and a doubt mark.

    >>> label_of(Voice.EXPERT, doubt=True)
    <Label.EXPERT_SKEPTICISM: 'expert_skepticism'>
    """
    if voice is Voice.PARTY:
        return Label.OFFICIAL_CLAIM
    if voice is Voice.OUTSIDE:
        return Label.THIRD_PARTY_ASSESSMENT
    if voice is Voice.EXPERT:
        return Label.EXPERT_SKEPTICISM if doubt else Label.THIRD_PARTY_ASSESSMENT
    return Label.OTHER


# The same rule as two (5, 4) matrices: row = voice, column = label.
_RULE = {
    doubt: np.array([[label_of(v, doubt) is x for x in LABELS] for v in VOICES], float)
    for doubt in (False, True)
}


def label_scores(voice_scores: NDArray[Any], doubt_scores: NDArray[Any]) -> NDArray[np.float64]:
    """Return the scores of the four labels, shape (n, 4), that the rule derives from two heads.

    ``voice_scores`` (n, 5) are probabilities in the order of ``VOICES``; ``doubt_scores`` (n,) are the
    probabilities of doubt. The heads are taken as independent given the sentence, so each row sums to one.
    """
    doubt = np.asarray(doubt_scores, dtype=np.float64)[:, None]
    voice = np.asarray(voice_scores, dtype=np.float64)
    return np.asarray((voice * (1 - doubt)) @ _RULE[False] + (voice * doubt) @ _RULE[True])


def label_set(scores: Mapping[Label, float], threshold: float) -> list[Label]:
    """Return the labels whose scores reach the threshold, the likeliest first, and at least that one.

    >>> label_set({Label.OTHER: 0.3, Label.OFFICIAL_CLAIM: 0.6, Label.EXPERT_SKEPTICISM: 0.1}, 0.2)
    [<Label.OFFICIAL_CLAIM: 'official_claim'>, <Label.OTHER: 'other'>]
    """
    ordered = sorted(scores, key=lambda label: -scores[label])
    return [label for label in ordered if scores[label] >= threshold] or ordered[:1]
