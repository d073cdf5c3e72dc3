"""Evaluations -> report.json, report.md and plots, one section for each data set.

report.json is the source: report.md is made from nothing else, so that the two never differ. Evaluating one
more data set adds its section, evaluating one again replaces it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from serving.errors import SaysoError
from serving.labels import LABELS
from training.behaviour import Behaviour
from training.errors import KINDS, SortedErrors
from training.evaluation import Evaluation, context_gain, fidelity, gain
from training.metrics import reliability
from training.names import Swapped

JSON = "report.json"
MARKDOWN = "report.md"
_VERSION = 1
_DECIMALS = 6
_EXAMPLES = 2
_TITLES = [label.value.replace("third_party", "third-party").replace("_", " ") for label in LABELS]
# A bin of the reliability diagram with fewer sentences says little; it is drawn hollow and off the line.
_FEW = 10
# Okabe and Ito's palette: colour-blind readers tell them apart; line styles and markers do so in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#555555")
_STYLES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D")

Section = dict[str, Any]


def write_report(
    evaluations: Mapping[str, Evaluation],
    directory: Path,
    *,
    alone: Mapping[str, Evaluation] | None = None,
    exact: Mapping[str, Evaluation] | None = None,
    about: Mapping[str, str] | None = None,
    model: str = "",
) -> list[Path]:
    """Write the evaluations, by data set name, into the report in ``directory``; return the files written.

    ``alone`` are the same data sets with each sentence read alone, shown beside, and ``exact`` the same in fp32, to
    tell what int8 costs. ``about`` says in a sentence what a data set is. ``model`` names
    what was measured: a report on another is replaced, never added to.
    """
    alone, exact, about = alone or {}, exact or {}, about or {}
    if unknown := [name for name in [*alone, *exact, *about] if name not in evaluations]:
        known = ", ".join(evaluations)
        raise SaysoError(
            f"{', '.join(unknown)}: not evaluated, so there is no section to add to; expected {known}"
        )
    directory.mkdir(parents=True, exist_ok=True)
    report = _read(directory, model)
    plots: list[Path] = []
    for name, evaluation in evaluations.items():
        section = _section(evaluation, alone.get(name), about.get(name, ""))
        if name in exact:
            section["fidelity"] = _rounded(asdict(fidelity(evaluation, exact[name])))
        section["plots"] = _draw(evaluation, name, directory)
        plots += [directory / plot for plot in section["plots"].values()]
        report["datasets"][name] = section
    return [*_write(report, directory), *plots]


def write_comparison(comparison: Mapping[str, Any], directory: Path, *, model: str = "") -> list[Path]:
    """Write the table of ``compare`` (``Comparison.as_dict``) into the report, in place of an earlier one."""
    return _add("comparison", _rounded(comparison), directory, model)


def write_behaviour(behaviour: Behaviour, directory: Path, *, model: str = "") -> dict[str, Any]:
    """Write the cases and failures by capability into the report, in place of earlier ones; return them."""
    failed = behaviour.failed
    figures = {
        capability: {
            "cases": cases,
            "failed": failed[capability],
            "examples": _examples(behaviour, capability),
        }
        for capability, cases in behaviour.cases.items()
    }
    _add("behaviour", figures, directory, model)
    return figures


def write_swaps(
    swaps: Mapping[str, Swapped], data: str, directory: Path, *, model: str = ""
) -> dict[str, Any]:
    """Write what swapping names in a data set did into the report, in place of an earlier one; return it."""
    figures = {"data": data, "kinds": {kind: asdict(found) for kind, found in swaps.items()}}
    _add("name_swaps", figures, directory, model)
    return figures


def write_errors(errors: SortedErrors, directory: Path, *, model: str = "") -> dict[str, Any]:
    """Write how many of the errors read are of each kind into the report, in place of an earlier one; return it."""
    figures = {"data": errors.data, "kinds": errors.kinds}
    _add("errors", figures, directory, model)
    return figures


def _examples(behaviour: Behaviour, capability: str) -> list[dict[str, str]]:
    """Return the wrongly answered sentences of the first failures, with what was said and what is right."""
    pairs = [
        (target, answer)
        for failure in behaviour.failures
        if failure.case.capability == capability
        for target, answer in zip(failure.case.articles, failure.answers, strict=True)
        if answer is not target.label
    ]
    return [
        {"sentence": target.sentences[target.target - 1], "answer": answer.value, "right": target.label.value}
        for target, answer in pairs[:_EXAMPLES]
    ]


def read_report(directory: Path) -> dict[str, Any]:
    """Return the content of a directory's report.json."""
    path = directory / JSON
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SaysoError(f"{path}: no such report; `sayso-train evaluate` writes it") from None
    except (OSError, ValueError) as error:
        raise SaysoError(f"{path}: damaged ({error}); delete it and evaluate again") from None
    if not isinstance(report, dict) or report.get("version") != _VERSION or "datasets" not in report:
        raise SaysoError(f"{path}: not a report that this version reads; delete it and evaluate again")
    return report


def dataset_name(data: str) -> str:
    """Return the name of a split or a file in the report: never its folder.

    >>> dataset_name("some/where/dev.jsonl")
    'dev'
    """
    return Path(data).stem


def _read(directory: Path, model: str) -> dict[str, Any]:
    empty = {"version": _VERSION, "model": model, "datasets": {}}
    if not (directory / JSON).exists():
        return empty
    report = read_report(directory)
    return report if report.get("model", "") == model else empty


def _add(part: str, figures: Any, directory: Path, model: str) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    report = _read(directory, model)
    report[part] = figures
    return _write(report, directory)


def _write(report: Mapping[str, Any], directory: Path) -> list[Path]:
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    _replace(directory / JSON, text.encode())
    # From what a reader of report.json gets, not from what was meant to be written.
    _replace(directory / MARKDOWN, render_markdown(json.loads(text)).encode())
    return [directory / JSON, directory / MARKDOWN]


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


# --- evaluations -> figures ------------------------------------------------------------------------------


def _section(evaluation: Evaluation, alone: Evaluation | None, about: str) -> Section:
    section: Section = {"about": about} if about else {}
    section["articles"], section["sentences"] = evaluation.articles, evaluation.sentences
    section["alone" if evaluation.alone else "in_context"] = _figures(evaluation)
    if alone is not None:
        if evaluation.alone or not alone.alone:
            raise SaysoError("expected an evaluation in context and, beside it, one with alone=True")
        section["alone"] = _figures(alone)
        section["context_gain"] = _rounded(asdict(gain(evaluation, alone)))
        if where_needed := context_gain(evaluation, alone):
            section["context_needed"] = _rounded(asdict(where_needed))
    return section


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    """Return what of an evaluation goes into report.json."""
    labels = {
        label: asdict(figures) | {"average_precision": evaluation.average_precision[label]}
        for label, figures in evaluation.labels.items()
    }
    figures: dict[str, Any] = {
        "macro_f1": evaluation.macro_f1,
        "macro_f1_interval": asdict(evaluation.macro_f1_interval),
        "voice_macro_f1": evaluation.voice_macro_f1,
        "doubt_f1": evaluation.doubt_f1,
        "ece": evaluation.ece,
        "brier": evaluation.brier,
        "sets_90": asdict(evaluation.sets_90),
        "truncated": evaluation.truncated,
        "sentences_per_second": round(evaluation.sentences_per_second, 1),
        "labels": labels,
        "confusion": evaluation.confusion.tolist(),
        "groups": {key: {v: asdict(g) for v, g in of.items()} for key, of in evaluation.groups.items()},
    }
    rounded: dict[str, Any] = _rounded(figures)
    return rounded


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS)
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


# --- report.json -> report.md ----------------------------------------------------------------------------

_READINGS = {"in_context": "in context", "alone": "each sentence alone"}
_HEADLINES = {"voice macro-F1": "voice_macro_f1", "doubt F1": "doubt_f1", "ECE": "ece", "Brier": "brier"}
_LEGEND = """\
Macro-F1 is the mean F1 over the four labels; square brackets hold 95 % bootstrap intervals over articles.
Voice macro-F1 is over the five voices, doubt F1 of the sentences that cast doubt.
ECE is the expected calibration error of the top score (15 bins of equal width); Brier is summed over the
labels, from 0 (best) to 2. `labels_90` are the sets that are to hold the right label in nine of ten sentences: how
often they do, and how many labels they hold on average. AP is average precision, the area under the
precision-recall curve."""


def render_markdown(report: Mapping[str, Any]) -> str:
    """Return report.md for the content of report.json."""
    lines = ["# Evaluation", ""]
    if report.get("model"):
        lines += [f"Model: {report['model']}", ""]
    lines += [_LEGEND, ""]
    for name, section in report["datasets"].items():
        lines += _section_lines(name, section)
    if report.get("comparison"):
        lines += ["## Comparison", "", *comparison_lines(report["comparison"]), ""]
    if report.get("errors"):
        lines += ["## Errors by kind", "", *error_lines(report["errors"]), ""]
    if report.get("behaviour"):
        lines += ["## Behaviour", "", *behaviour_lines(report["behaviour"]), ""]
    if report.get("name_swaps"):
        lines += ["## Name swaps", "", *swap_lines(report["name_swaps"]), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def comparison_lines(comparison: Mapping[str, Any]) -> list[str]:
    """Return the lines of a comparison (``Comparison.as_dict``): what was trained on, and the table."""
    rows = [comparison_row(row, comparison["datasets"]) for row in comparison["rows"]]
    header = ["", *(f"{name}: macro-F1" for name in comparison["datasets"]), "training"]
    about = [comparison["about"], ""] if comparison.get("about") else []
    return [*about, *table(header, rows)]


def comparison_row(row: Mapping[str, Any], datasets: Sequence[str]) -> list[str]:
    """Return the cells of one row of a comparison as text."""
    cells = [_with_interval(row["datasets"][name]) for name in datasets]
    seconds = row.get("training_seconds")
    return [row["name"], *cells, "" if seconds is None else f"{seconds:,.1f} s"]


def error_lines(errors: Mapping[str, Any]) -> list[str]:
    """Return the table of the errors that were read, the most frequent kind first."""
    read = sum(errors["kinds"].values())
    by_count = sorted(errors["kinds"].items(), key=lambda item: -item[1])
    rows = [[f"{kind}: {KINDS[kind]}", f"{count}", f"{count / read:.0%}"] for kind, count in by_count]
    return table([f"{read} errors on {errors['data']}", "errors", "share"], rows)


def behaviour_lines(behaviour: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the table of a behavioural test, the whole of it last."""
    whole = {key: sum(figures[key] for figures in behaviour.values()) for key in ("cases", "failed")}
    rows = [
        [name, f"{f['cases']:,}", f"{f['failed']:,}", f"{f['failed'] / f['cases']:.0%}"]
        for name, f in {**behaviour, "all": whole}.items()
    ]
    return table(["capability", "cases", "failed", "failure rate"], rows)


def swap_lines(swaps: Mapping[str, Any]) -> list[str]:
    """Return what swapping names did: of all sentences read, and of those with a swapped name in them."""
    rows = [
        [kind, f"{found['changed'] / found['sentences']:.1%}", f"{found['touched'] / found['sentences']:.1%}"]
        for kind, found in swaps["kinds"].items()
    ]
    return table([f"other names in {swaps['data']}", "labels changed", "sentences with a changed name"], rows)


def _section_lines(name: str, section: Section) -> Iterator[str]:
    readings = {reading: section[key] for key, reading in _READINGS.items() if key in section}
    yield from (f"## {name}", "")
    if section.get("about"):
        yield from (section["about"], "")
    yield from (f"{section['articles']:,} articles, {section['sentences']:,} sentences.", "")
    yield from _headline_lines(section, readings)
    for reading, figures in readings.items():
        where = f" ({reading})" if len(readings) > 1 else ""
        yield from _label_lines(figures, where)
        yield from _confusion_lines(figures, where)
        yield from _group_lines(figures, where)
    yield from (f"![{kind} on {name}]({path})\n" for kind, path in section.get("plots", {}).items())


def _headline_lines(section: Section, readings: Mapping[str, Any]) -> list[str]:
    rows = [["macro-F1", *map(_with_interval, readings.values())]]
    rows += [[title, *(_figure(f[key]) for f in readings.values())] for title, key in _HEADLINES.items()]
    for title, key in (("coverage of `labels_90`", "coverage"), ("labels in `labels_90`", "size")):
        rows += [[title, *(_figure(f["sets_90"][key]) for f in readings.values())]]
    rows += [["sentences cut to the window", *(f"{f['truncated']:,}" for f in readings.values())]]
    rows += [["sentences per second", *(f"{f['sentences_per_second']:,.1f}" for f in readings.values())]]
    lines = [*table(["", *readings], rows), ""]
    if found := section.get("context_gain"):
        text = f"Context changes macro-F1 by {found['macro_f1']:+.3f}, paired interval"
        lines += [f"{text} {_signed(found['interval'])}.", ""]
    if found := section.get("context_needed"):
        lines += [context_needed(found), ""]
    if found := section.get("fidelity"):
        text = f"int8 agrees with fp32 on {found['agreement']:.1%} of the labels; fp32 has macro-F1"
        lines += [f"{text} {found['exact_macro_f1']:.3f}.", ""]
    return lines


def context_needed(found: Mapping[str, Any]) -> str:
    """Return a sentence on the accuracy where a reader of the sentence alone goes wrong."""
    return (
        f"Of the {found['sentences']:,} sentences that need context {found['in_context']:.1%} are right in context and"
        f" {found['alone']:.1%} alone: {found['gain']:+.3f}, paired interval {_signed(found['interval'])}."
    )


def _signed(interval: Mapping[str, float]) -> str:
    return f"[{interval['low']:+.3f}, {interval['high']:+.3f}]"


def _label_lines(figures: Mapping[str, Any], where: str) -> list[str]:
    columns = ("precision", "recall", "f1", "average_precision")
    rows = [
        [f"`{label}`", *(_figure(found[c]) for c in columns), f"{found['support']:,}"]
        for label, found in figures["labels"].items()
    ]
    header = [f"label{where}", "precision", "recall", "F1", "AP", "sentences"]
    return [*table(header, rows), ""]


def _confusion_lines(figures: Mapping[str, Any], where: str) -> list[str]:
    counts = zip(LABELS, figures["confusion"], strict=True)
    rows = [[f"`{label}`", *(f"{n:,}" for n in row)] for label, row in counts]
    return [*table([f"right label ↓ predicted →{where}", *(f"`{label}`" for label in LABELS)], rows), ""]


def _group_lines(figures: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, groups in figures["groups"].items():
        rows = [
            [
                _cell(value),
                *(f"{g[c]:,}" for c in ("articles", "sentences", "labels")),
                _figure(g["macro_f1"]),
            ]
            for value, g in groups.items()
        ]
        header = [f"{key}{where}", "articles", "sentences", "labels that occur", "macro-F1 over these"]
        yield from (*table(header, rows), "")


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _with_interval(figures: Mapping[str, Any]) -> str:
    interval = figures["macro_f1_interval"]
    return f"{figures['macro_f1']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, its first column words and the others figures."""
    rule = ["---", *("---:" for _ in header[1:])]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


# --- plots -----------------------------------------------------------------------------------------------


def _draw(evaluation: Evaluation, name: str, directory: Path) -> dict[str, str]:
    """Write the plots of one data set and return their file names by kind."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "data"
    reading = f"{name}, {_READINGS['alone' if evaluation.alone else 'in_context']}"
    figures = {
        "confusion": ("confusion matrix", _confusion_figure(evaluation.confusion, reading)),
        "reliability": ("reliability diagram", _reliability_figure(evaluation, reading)),
        "precision-recall": ("precision and recall", _precision_recall_figure(evaluation, reading)),
        "risk-coverage": ("risk and coverage", _risk_coverage_figure(evaluation, reading)),
    }
    files = {}
    for stem, (kind, figure) in figures.items():
        files[kind] = f"{stem}-{slug}.png"
        figure.savefig(directory / files[kind], dpi=120, bbox_inches="tight", pad_inches=0.1)
    return files


def _confusion_figure(counts: NDArray[np.int64], reading: str) -> Figure:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6.8, 5.6), layout="compressed")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        text = f"{share:.0%}\n{counts[row, column]:,}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11)
    ticks = [title.replace(" ", "\n") for title in _TITLES]
    axes.set_xticks(range(len(LABELS)), ticks)
    axes.set_yticks(range(len(LABELS)), ticks)
    axes.set(xlabel="predicted label", ylabel="right label", title=f"Confusion matrix: {reading}")
    figure.colorbar(image, ax=axes, label="share of the right label's sentences", shrink=0.85)
    return figure


def _reliability_figure(evaluation: Evaluation, reading: str) -> Figure:
    bins = reliability(evaluation.scores, evaluation.gold_index)
    width = 1 / len(bins.count)
    left = np.arange(len(bins.count)) * width
    figure = Figure(figsize=(6, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    many, few = bins.count >= _FEW, (bins.count > 0) & (bins.count < _FEW)
    upper.bar(left[many], bins.accuracy[many], width, align="edge", color="#56B4E9", edgecolor="white")
    hollow = {"fill": False, "edgecolor": "#56B4E9", "linestyle": ":"}
    upper.bar(
        left[few], bins.accuracy[few], width, align="edge", label=f"fewer than {_FEW} sentences", **hollow
    )
    upper.plot([0, 1], [0, 1], color="#555555", linestyle="--", label="perfectly calibrated")
    upper.plot(bins.confidence[many], bins.accuracy[many], "o-", color="#0072B2", label="share in each bin")
    upper.set(ylim=(0, 1.02), ylabel="share of right answers", title=f"Reliability: {reading}")
    upper.text(0.03, 0.95, f"ECE {evaluation.ece:.3f}", transform=upper.transAxes, va="top", fontsize=12)
    upper.legend(loc="lower right", framealpha=1)
    lower.bar(left, bins.count, width, align="edge", color="#56B4E9", edgecolor="white")
    lower.set(xlim=(0, 1), xlabel="top score", ylabel="sentences")
    _grid(upper, lower)
    return figure


def _precision_recall_figure(evaluation: Evaluation, reading: str) -> Figure:
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    for index, label in enumerate(LABELS):
        found = evaluation.labels[label]
        if not found.support:
            continue
        right, colour = evaluation.gold_index == index, _COLOURS[index]
        precision, recall, _ = precision_recall_curve(right, evaluation.scores[:, index])
        text = f"{_TITLES[index]} (AP {evaluation.average_precision[label]:.2f}, n = {found.support:,})"
        axes.plot(recall, precision, color=colour, linestyle=_STYLES[index], linewidth=1.8, label=text)
        axes.scatter(
            found.recall,
            found.precision,
            70,
            color=colour,
            marker=_MARKERS[index],
            edgecolor="white",
            zorder=3,
        )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title(f"Precision and recall: {reading}\n(marks: the answers as given)", fontsize=11)
    axes.legend(loc="lower left", fontsize=9)
    _grid(axes)
    return figure


def _risk_coverage_figure(evaluation: Evaluation, reading: str) -> Figure:
    """Draw the share of wrong answers among those that remain when the least sure are left out."""
    top = evaluation.scores.max(axis=1)
    surest_first = np.argsort(-top, kind="stable")
    wrong = (evaluation.scores.argmax(axis=1) != evaluation.gold_index)[surest_first]
    answered = np.arange(1, len(wrong) + 1)
    risk, coverage, top = wrong.cumsum() / answered, answered / len(wrong), top[surest_first]
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(coverage, risk, color=_COLOURS[0], linewidth=1.8)
    for threshold in (0.9, 0.8, 0.7, 0.6, 0.5):
        if count := int((top >= threshold).sum()):
            at = (coverage[count - 1], risk[count - 1])
            axes.plot(*at, "o", color=_COLOURS[1], markersize=5)
            axes.annotate(
                f"{threshold:g}", at, xytext=(-3, 7), textcoords="offset points", ha="right", fontsize=9
            )
    axes.set(
        xlim=(0, 1.02), ylim=(0, None), xlabel="share of sentences answered", ylabel="share of them wrong"
    )
    axes.set_title(f"Risk and coverage: {reading}\n(marks: `abstain_below`)", fontsize=11)
    _grid(axes)
    return figure


def _grid(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.grid(color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
