"""Text -> sentence spans with offsets into the original text.

The algorithm is nupunkt's; the vocabulary is ours. The model that nupunkt ships was learned from American
legal texts: it takes "month." and "wall." for abbreviations and "Lt." for the end of a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise, product

from nupunkt import PunktParameters, PunktSentenceTokenizer
from nupunkt.core.constants import ORTHO_LC


@dataclass(frozen=True, slots=True)
class Span:
    """A sentence's half-open range of code points in the original text."""

    start: int
    end: int


_ABBREVIATIONS = """
    mr mrs ms mx dr prof rev fr sr jr st ste hon rt messrs mme mlle ph.d atty amb asst assoc dep det insp supt
    ret retd gen lt col maj capt cmdr cdr sgt cpl pvt pfc brig adm gov sen sens rep reps pres jan feb mar apr
    jun jul aug sep sept oct nov dec inc corp co cos ltd llc plc bros assn dept univ inst intl govt natl ave
    blvd rd hwy mt ft vs v viz cf al approx est vol
"""
# These end the sentence when a capital follows: "in Salem, Ore. Police said", but "SALEM, Ore. (AP) -".
_FINAL = """
    ala ariz ark calif colo conn del fla ga ill ind kan ky la mass mich minn miss mo mont neb nev okla ore pa
    tenn tex va vt wash wis wyo etc a.m p.m
"""
# These begin a sentence after an abbreviation or an initial: "in the U.S. The visa", but "U.S. Army".
_STARTERS = """
    the a an this that these those it its he his she her they their we our you your i my there here what when
    where why who how which while if as at by in on for from with without after before since until during
    under over about against among between because although though but and or nor so yet not no none all any
    both each every neither some many most several few other others another however meanwhile moreover still
    then now today also even only once such to of
"""
_CLITICS = ("", "'s", "’s", "'re", "’re", "'ll", "’ll", "'ve", "’ve", "'d", "’d", "'m", "’m")
# These go on after "a.m." or "p.m." although they have a capital: "5 p.m. Tuesday".
_CLOCK = """
    monday tuesday wednesday thursday friday saturday sunday eastern central pacific et est edt ct cst cdt mt
    mst mdt pt pst pdt gmt utc
"""
# Abbreviations only before a number: "No. 3", "p. 12", "Sec. 230"; elsewhere words or initials.
_NUMBERED = "no nos p pp art fig sec"


class _Abbreviations(set[str]):
    """The listed abbreviations, and letters with stops between them: U.S., A.D.H.D., J.R.R."""

    _DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")

    def __contains__(self, word: object) -> bool:
        return super().__contains__(word) or self._DOTTED.fullmatch(str(word)) is not None


@cache
def _tokenizer() -> PunktSentenceTokenizer:
    """Return nupunkt's tokenizer with a vocabulary for news; ``##number##`` is its name for any number."""
    goes_on = {*product(("a.m", "p.m"), _CLOCK.split()), *product(_NUMBERED.split(), ["##number##"])}
    parameters = PunktParameters(
        abbrev_types=_Abbreviations(_ABBREVIATIONS.split() + _FINAL.split()),
        collocations=goes_on,
        ortho_context={word + clitic: ORTHO_LC for word, clitic in product(_STARTERS.split(), _CLITICS)},
        abbrev_break_rates=dict.fromkeys(_FINAL.split(), (100, 100)),
    )
    return PunktSentenceTokenizer(parameters, include_common_abbrevs=False)


# What nupunkt would misread, rewritten one for one, so that offsets stay. Characters that it does not know:
_BREAKS = dict.fromkeys("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", " ")
_CHARACTERS = str.maketrans({**_BREAKS, **dict.fromkeys("“„«‘", "("), "؟": "?", "۔": ".", "।": "."})
# "R-Tenn.", "Brig.-Gen.", "non-U.S.": it knows an abbreviation after a colon, but not after a hyphen.
_HYPHEN = re.compile(r"(?<=\w)-(?=\w)|(?<=\w\.)-(?=[A-Z][a-z]+\.)")
# "wrote on X. Zelenska denied it": not an initial.
_ON_X = re.compile(r"(?<=\bon X)\.")
# At every mark it reads to the end of the word, and it keeps words: a megabyte of "!!!" would take hours.
_LONG_WORD = re.compile(r"(?<!\S)\S{40,}(?=\S{40})")

# "he said.The crowd": white space lost, frequent in collected pages; not "J.Smith", "U.S.The" or "Mrs.Lund".
_GLUED = re.compile(
    r"""(?<!\S)["'“‘(]*((?:[^\W_]+[-'’])*[^\W_]{3,})["'”’)]*[.!?]["'”’)]*"""
    r"""(?=["'“‘(]?[A-Z][\w'’-]*[,.!?]?(?:\s|$))"""
)
_BULLET = re.compile(r"\s*(?:[-*•·]|\d+[.)])\s")
_WRAPPED_CHARS = range(40, 101)


def segment(text: str) -> list[Span]:
    """Return the sentences of ``text`` in order: disjoint, trimmed, never blank.

    Outside the spans is only white space. A line break ends a sentence, except in a hard-wrapped paragraph.

    >>> segment("He left. She stayed.")
    [Span(start=0, end=8), Span(start=9, end=20)]
    """
    return [sentence for unit in _units(text) for sentence in _sentences(text, unit)]


def _sentences(text: str, unit: Span) -> Iterator[Span]:
    """Yield the sentences that nupunkt finds in a part of ``text``."""
    part = text[unit.start : unit.end].translate(_CHARACTERS)
    part = _ON_X.sub("!", _HYPHEN.sub(":", part))
    part = _LONG_WORD.sub(lambda match: "(" * len(match[0]), part)
    for start, end in _tokenizer().iter_spans(part, paragraph_breaks=False):
        yield Span(unit.start + start, unit.start + end)


def _units(text: str) -> Iterator[Span]:
    """Yield the paragraphs of ``text``, cut where white space was lost between sentences."""
    for paragraph in _paragraphs(text):
        start = paragraph.start
        for match in _GLUED.finditer(text, start, paragraph.end):
            if match[1].lower() not in _tokenizer().parameters.abbrev_types:
                yield Span(start, match.end())
                start = match.end()
        yield Span(start, paragraph.end)


def _paragraphs(text: str) -> Iterator[Span]:
    """Yield the lines of ``text``, but the lines of a hard-wrapped paragraph as one."""
    for filled, lines in groupby(_lines(text), key=lambda line: line.start < line.end):
        if filled:
            yield from _unwrapped(text, list(lines))


def _unwrapped(text: str, lines: list[Span]) -> Iterator[Span]:
    """Yield consecutive lines, joined if they look hard-wrapped: full, and half go on in lower case."""
    breaks = list(pairwise(lines))
    wrapped = 2 * sum(text[following.start].islower() for _, following in breaks) >= len(breaks)
    start = lines[0].start
    for line, following in breaks:
        full = line.end - line.start in _WRAPPED_CHARS
        if not (wrapped and full) or _BULLET.match(text, following.start, following.end):
            yield Span(start, line.end)
            start = following.start
    yield Span(start, lines[-1].end)


def _lines(text: str) -> Iterator[Span]:
    """Yield every line of ``text`` without the white space around it; a blank one ends before its start."""
    start = 0
    for line in text.splitlines(keepends=True):
        end = start + len(line)
        yield Span(end - len(line.lstrip()), start + len(line.rstrip()))
        start = end
