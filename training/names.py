"""Name swaps: an article with other countries, groups and persons in it. Its labels stay what they were.

Countries (with their adjectives and capitals) and armed or political groups come from tables. A person is named by two
or more capitalised words in a row that the texts never write in lower case, and after that by one of them. Within an
article the same name always becomes the same other name; what a body is (a ministry, a court, Reuters) is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from serving.predictor import Article
from training.corpus import LabelledArticle
from training.evaluation import Reader

# country|adjective|capital, as they are swapped in; _ALIASES are only swapped out.
_COUNTRIES = """
America|American|Washington Britain|British|London China|Chinese|Beijing Russia|Russian|Moscow Iran|Iranian|Tehran
Israel|Israeli|Jerusalem Ukraine|Ukrainian|Kyiv France|French|Paris Germany|German|Berlin India|Indian|Delhi
Pakistan|Pakistani|Islamabad Turkey|Turkish|Ankara Egypt|Egyptian|Cairo Syria|Syrian|Damascus Iraq|Iraqi|Baghdad
Afghanistan|Afghan|Kabul Lebanon|Lebanese|Beirut Yemen|Yemeni|Sanaa Libya|Libyan|Tripoli Sudan|Sudanese|Khartoum
Peru|Peruvian|Lima Somalia|Somali|Mogadishu Nigeria|Nigerian|Abuja Mali|Malian|Bamako Venezuela|Venezuelan|Caracas
Colombia|Colombian|Bogota Brazil|Brazilian|Brasilia Chile|Chilean|Santiago Cuba|Cuban|Havana Canada|Canadian|Ottawa
Japan|Japanese|Tokyo Taiwan|Taiwanese|Taipei Vietnam|Vietnamese|Hanoi Myanmar|Burmese|Yangon
Bangladesh|Bangladeshi|Dhaka
Indonesia|Indonesian|Jakarta Australia|Australian|Canberra Poland|Polish|Warsaw Hungary|Hungarian|Budapest
Romania|Romanian|Bucharest Serbia|Serbian|Belgrade Greece|Greek|Athens Italy|Italian|Rome Spain|Spanish|Madrid
Portugal|Portuguese|Lisbon Sweden|Swedish|Stockholm Norway|Norwegian|Oslo Georgia|Georgian|Tbilisi
Armenia|Armenian|Yerevan Azerbaijan|Azerbaijani|Baku Jordan|Jordanian|Amman Qatar|Qatari|Doha Algeria|Algerian|Algiers
Rwanda|Rwandan|Kigali Uganda|Ugandan|Kampala Kenya|Kenyan|Nairobi Ghana|Ghanaian|Accra
"""
_ALIASES = {"United States": "America", "U.S.": "America", "United Kingdom": "Britain", "New Delhi": "Delhi"}
_GROUPS = """
Hamas|Hezbollah|Taliban|Houthis|Boko Haram|Al-Shabab|Al-Qaeda|Islamic State|Islamic Jihad|M23|ELN|FARC|PKK
""".strip().split("|")
# Names of power, which a model may have learnt to obey.
_POWERFUL = (
    "Trump Biden Putin Zelensky Netanyahu Erdogan Modi Macron Merkel Xi Maduro Assad Obama Johnson Orban"
)
_CALENDAR = """
Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August September
October November December Jan Feb Mar Apr Jun Jul Aug Sept Sep Oct Nov Dec Mr Mrs Ms Dr Prof
"""
_NOT_NAMES = frozenset(_CALENDAR.split())
_UPPER, _LOWER = "A-ZÀ-ÖØ-Þ", r"a-zß-öø-ÿ\u0100-\u017f"
_WORD = rf"[{_UPPER}][{_LOWER}]+(?:[-'’][{_UPPER}]?[{_LOWER}]{{2,}})*"
_SEQUENCE = re.compile(rf"\b{_WORD}(?: {_WORD})+\b")
_ORDINARY = re.compile(rf"\b[{_LOWER}]+\b")

KINDS = ("countries", "groups", "persons")

_T = TypeVar("_T")


class NameSwaps:
    """Swaps names in articles like those it was made from, which give the names to swap in.

    >>> swaps = NameSwaps([])
    >>> article = Article(["A Russian court sided with Moscow."], "")
    >>> "Russian" in swaps.swap(article, Random(1)).sentences[0]
    False
    """

    def __init__(self, articles: Iterable[LabelledArticle]) -> None:
        texts = [s.text for article in articles for s in article.sentences]
        self._ordinary = {word for text in texts for word in _ORDINARY.findall(text)}
        persons = {name for text in texts for name in self._persons(text)}
        self._first = sorted({name.split()[0] for name in persons} or {"Ada"})
        self._last = sorted({name.split()[-1] for name in persons} | set(_POWERFUL.split()))

    def swap(self, article: Article, random: Random, kinds: Sequence[str] = KINDS) -> Article:
        """Return the article with every name of these ``kinds`` exchanged for another one."""
        texts = [article.title, *article.sentences]
        makers: dict[str, Callable[[Sequence[str], Random], Mapping[str, str]]] = {
            "countries": _other_countries,
            "groups": _other_groups,
            "persons": self._other_persons,
        }
        mapping = {old: new for kind in kinds for old, new in makers[kind](texts, random).items()}
        if not mapping:
            return article
        title, *sentences = [_replaced(text, mapping) for text in texts]
        return replace(article, sentences=sentences, title=title)

    def _persons(self, text: str) -> list[str]:
        """Return the runs of capitalised words that are nowhere ordinary words."""
        runs = (found[0] for found in _SEQUENCE.finditer(text))
        return [run for run in runs if all(self._is_name(word) for word in run.split())]

    def _is_name(self, word: str) -> bool:
        return word not in _NOT_NAMES and word not in _TABLED and word.lower() not in self._ordinary

    def _other_persons(self, texts: Sequence[str], random: Random) -> dict[str, str]:
        persons = sorted({name for text in texts for name in self._persons(text)})
        first = {name.split()[0] for name in persons}
        words = dict.fromkeys(word for name in persons for word in name.split())
        return {word: random.choice(self._first if word in first else self._last) for word in words}


@dataclass(frozen=True)
class Swapped:
    """What swapping names did: of ``sentences`` read, how many had a name of theirs swapped, and changed label."""

    sentences: int
    touched: int
    changed: int


def measure(
    reader: Reader, articles: Sequence[LabelledArticle], swaps: NameSwaps, *, seed: int = 0, draws: int = 3
) -> dict[str, Swapped]:
    """Return by kind of name, and for all of them, how often a swap changes the label; summed over ``draws``."""
    plain = [article.unlabelled() for article in articles]
    before = reader.predict(plain)
    found = {}
    for name, kinds in {**{kind: (kind,) for kind in KINDS}, "all": KINDS}.items():
        touched = changed = 0
        for draw in range(draws):
            random = Random(f"{seed}-{draw}-{name}")
            swapped = [swaps.swap(article, random, kinds) for article in plain]
            differ = [
                i for i, old in enumerate(plain) if swapped[i] != old
            ]  # the others need no second reading
            for i, after in zip(differ, reader.predict([swapped[i] for i in differ]), strict=True):
                touched += _differences(plain[i].sentences, swapped[i].sentences)
                changed += _differences([p.label for p in before[i]], [p.label for p in after])
        found[name] = Swapped(sum(map(len, before)) * draws, touched, changed)
    return found


def _differences(before: Sequence[object], after: Sequence[object]) -> int:
    return sum(old != new for old, new in zip(before, after, strict=True))


def _other_countries(texts: Sequence[str], random: Random) -> dict[str, str]:
    names = _present(_ROW_OF, texts)
    aliased = [_ROW_OF[name] for alias, name in _ALIASES.items() if any(alias in text for text in texts)]
    rows = dict.fromkeys([row for row in _ROWS if not names.isdisjoint(row)] + aliased)
    mapping: dict[str, str] = {}
    for old, new in _paired(list(rows), _ROWS, random):
        mapping |= dict(zip(old, new, strict=True))
        mapping |= {o.upper(): n.upper() for o, n in zip(old, new, strict=True)}  # datelines
        if _has_plural(old[1]) and _has_plural(new[1]):
            mapping[f"{old[1]}s"] = f"{new[1]}s"
    return mapping | {alias: mapping[name] for alias, name in _ALIASES.items() if name in mapping}


def _has_plural(adjective: str) -> bool:
    return adjective.endswith(("n", "i"))


def _other_groups(texts: Sequence[str], random: Random) -> dict[str, str]:
    names = _present(_GROUPS, texts)
    return dict(_paired([group for group in _GROUPS if group in names], _GROUPS, random))


def _present(names: Iterable[str], texts: Sequence[str]) -> set[str]:
    return set(re.findall(rf"\b(?:{'|'.join(names)})\b", "\n".join(texts)))


def _paired(present: Sequence[_T], known: Sequence[_T], random: Random) -> list[tuple[_T, _T]]:
    """Return each of the present with one of the absent, as far as there are enough of them."""
    absent = [item for item in known if item not in present]
    return list(zip(present, random.sample(absent, min(len(present), len(absent))), strict=False))


def _replaced(text: str, mapping: Mapping[str, str]) -> str:
    names = "|".join(map(re.escape, sorted(mapping, key=len, reverse=True)))
    pattern = re.compile(rf"(?:\b(?P<article>an?|An?|[Tt]he(?= United)) )?(?<![\w-])(?P<name>{names})(?!\w)")
    return pattern.sub(lambda found: _with_article(found["article"], mapping[found["name"]]), text)


def _with_article(article: str | None, name: str) -> str:
    if not article or article.lower() == "the":
        return name
    return f"{article[0]}{'n' if name[0] in 'AEIOU' else ''} {name}"


_ROWS = [tuple(row.split("|")) for row in _COUNTRIES.split()]
_ROW_OF = {name: row for row in _ROWS for name in row}
_TABLED = {*_ROW_OF, *(word for group in _GROUPS for word in group.split())}
