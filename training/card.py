"""The model card, written from a model's manifest and reports: no figure in it is typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from serving.artifact import Manifest, read_manifest
from training.report import (
    behaviour_lines,
    comparison_lines,
    context_needed,
    error_lines,
    read_report,
    swap_lines,
    table,
)

CARD = "README.md"
_GAP = "\n\n"
_WIDTH = 120
_UNBROKEN: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}

_TASK = """\
# Model card: Sayso {version}

**Task.** For each sentence of an English news article: who stands behind it (official claim, third-party assessment,
expert skepticism, other), whose voice it carries, and whether it casts doubt. The labels are defined in the
annotation guide (`datasets/annotation-guide.md` in the repository).

**Use.** To see at a glance what in a story is a party's claim, what was checked by somebody else, and who doubts it; to
sort an archive by it; as a first reading that a person goes over.

**Misuse.** It says who stands behind a sentence, not whether the sentence is true. A claim that nobody doubts is not
thereby right, nor is a doubted one wrong. Do not rank people or outlets by it, do not decide by it what is published,
and read the article before you quote an answer.

**Model.** {encoder}, fine-tuned over windows of up to {tokens} tokens with a voice and a doubt head on the mean of each
sentence's tokens. {origin}"""

_ENCODERS = {"minilm": "all-MiniLM-L6-v2 (22 million parameters, Apache-2.0)"}

_DATA = """\
**Data.** Trained on {train}, calibrated on {validation}. Files: {files}. **Texts and labels of the written corpus
(`datasets/`) come from language models that follow a brief and the annotation guide; its events and persons are
invented.** Real news articles come from research collections that may not be redistributed; their labels come from
language models that follow the guide, too.

**What can be repeated.** Anybody can repeat `configs/default.yaml` (`make train`) from the repository alone. A recipe
with real news needs those articles; with data of your own in the same format, pass `--extra-data`."""

_FIGURES = """\
## Figures

Macro-F1 over the four labels with a 95 % bootstrap interval over articles, one training run each; F1 by label, ECE (the
expected calibration error) and the coverage of `labels_90` (with the mean number of labels in them) in context.
`test` is the written test split, on beats that training never saw. Made by `sayso-train evaluate --model MODEL --data
SET --fidelity`; all of it, with plots, in `report.md`."""

_ERRORS = """\
Wrong answers drawn at random, read in their articles and sorted by a language model of the kind that labelled them:
`sayso-train errors`."""

_NAMES = """\
A label must not follow a name. Other countries, groups and persons in the same articles, as `sayso-train swap-names`
puts them there, change so many labels, in any sentence of these articles:"""

_LIMITS = """\
English news only; other text, and badly split sentences, are outside of what was measured. The readers who labelled
the data are language models of one kind: their agreement says how clear the guide is, and less about how people would
read."""


def write_card(directory: Path, beside: Sequence[Path] = ()) -> Path:
    """Write the card of a model directory; models ``beside`` get rows in its table of figures. Return its path."""
    manifest, report = read_manifest(directory), read_report(directory)
    models = {"this model": report} | {other.name: read_report(other) for other in beside}
    parts = [_about(manifest), _data(manifest), _FIGURES, "\n".join(_figure_rows(models)), *_int8(report)]
    parts += _context(report)
    parts += _groups(report)
    for name, found in models.items():
        if found.get("comparison"):
            command = f"`sayso-train compare --model {name}`"
            parts += [
                f"## Against baselines: {name}",
                *_blocks(comparison_lines(found["comparison"])),
                command,
            ]
    if report.get("errors"):
        parts += ["## Errors by kind", _ERRORS, "\n".join(error_lines(report["errors"]))]
    if report.get("behaviour"):
        parts += list(_behaviour(report["behaviour"]))
    if report.get("name_swaps"):
        parts += ["## Names", _NAMES, "\n".join(swap_lines(report["name_swaps"]))]
    parts += ["## Limits", _LIMITS]
    path = directory / CARD
    path.write_text(_GAP.join(map(_wrapped, parts)) + "\n", encoding="utf-8")
    return path


def _about(manifest: Manifest) -> str:
    averaged = manifest.training.get("averaged", ())
    origin = f"Its weights are the mean of {len(averaged)} runs from the same weights." if averaged else ""
    encoder = _ENCODERS.get(manifest.encoder, f"Encoder `{manifest.encoder}`")
    tokens = manifest.limits.max_tokens
    return _TASK.format(version=manifest.model_version, encoder=encoder, tokens=tokens, origin=origin).strip()


def _data(manifest: Manifest) -> str:
    counts = {
        part: f"{found['sentences']:,} sentences in {found['articles']:,} articles"
        for part, found in manifest.data.items()
        if part in ("train", "validation")
    }
    return _DATA.format(**counts, files=", ".join(f"`{name}`" for name in manifest.data["files"]))


def _figure_rows(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    header = ["", "in context", "each sentence alone", "official", "third-party", "skepticism", "other"]
    rows = []
    for model, report in models.items():
        for name, section in report["datasets"].items():
            figures = section["in_context"]
            sets = figures["sets_90"]
            rows.append(
                [
                    f"{model}, {name}",
                    *(_interval(section.get(key)) for key in ("in_context", "alone")),
                    *(f"{found['f1']:.3f}" for found in figures["labels"].values()),
                    f"{figures['ece']:.3f}",
                    f"{sets['coverage']:.3f} ({sets['size']:.2f})",
                ]
            )
    return table([*header, "ECE", "`labels_90`"], rows)


def _interval(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    interval = figures["macro_f1_interval"]
    return f"{figures['macro_f1']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _int8(report: Mapping[str, Any]) -> Iterator[str]:
    found = {name: s["fidelity"] for name, s in report["datasets"].items() if "fidelity" in s}
    if found:
        sets = [
            f"{name}: {f['agreement']:.1%} of the labels, macro-F1 {f['exact_macro_f1']:.3f} in fp32"
            for name, f in found.items()
        ]
        yield "The figures are of int8. Where fp32 agrees: " + "; ".join(sets) + "."


def _context(report: Mapping[str, Any]) -> Iterator[str]:
    for name, section in report["datasets"].items():
        if found := section.get("context_needed"):
            yield f"{name}: {context_needed(found)}"


def _groups(report: Mapping[str, Any]) -> Iterator[str]:
    for name, section in report["datasets"].items():
        for key, groups in section["in_context"]["groups"].items():
            if len(groups) < 2:
                continue
            yield f"### {name} by {key}"
            rows = [
                [value, f"{g['sentences']:,}", f"{g['labels']}", f"{g['macro_f1']:.3f}"]
                for value, g in groups.items()
            ]
            yield "\n".join(table([key, "sentences", "labels that occur", "macro-F1 over these"], rows))


def _behaviour(behaviour: Mapping[str, Any]) -> Iterator[str]:
    yield "## What it gets wrong"
    yield (
        "Hand-written cases (`datasets/behaviour.jsonl`), none of them trained on; `sayso-train behaviour --show` lists"
        " every failure."
    )
    yield "\n".join(behaviour_lines(behaviour))
    worst = sorted(behaviour.values(), key=lambda found: -found["failed"] / found["cases"])
    lines = [
        f"- {example['sentence']} Read as {_words(example['answer'])}, right is {_words(example['right'])}."
        for found in worst[:5]
        for example in found["examples"][:1]
    ]
    yield "\n".join(["For example:", "", *lines])


def _wrapped(part: str) -> str:
    """Return a part with its prose wrapped; tables, lists and headings stay as they are."""
    blocks = part.split(_GAP)
    return _GAP.join(b if b.startswith(("|", "#", "-")) else fill(b, _WIDTH, **_UNBROKEN) for b in blocks)


def _words(label: str) -> str:
    return label.replace("_", " ")


def _blocks(lines: Sequence[str]) -> list[str]:
    return "\n".join(lines).split(_GAP)
