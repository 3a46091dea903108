"""The evaluation report: one HTML file with its plots inside, readable without a network."""

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np

from intent_platform.model.contest import UNSEEN_ITEMS, Evaluation
from intent_platform.model.gate import CONSTANT, Verdict
from intent_platform.model.metrics import Figure, reliability
from intent_platform.sequences import Split

METRICS = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "log_loss": "log-loss",
    "calibration_error": "calibration error",
    "recall_at_20": "recall@20",
    "mrr_at_20": "MRR@20",
}
SLICES = {
    "all": "right after each event",
    "day_end": "at midnight, as the daily refresh asks",
    UNSEEN_ITEMS: "next items that had no event on the training and validation days",
}

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}small{color:#666}img{max-width:100%}"""


def write_report(path: Path, evaluation: Evaluation, verdict: Verdict, split: Split) -> None:
    figures, label = evaluation.figures, evaluation.will_buy
    title = "approved" if verdict.is_approved else "refused"
    days = f"trained on {split.train[0]} … {split.train[-1]}, tested on {split.test[0]} … {split.test[-1]}"
    body = [f"<h1>Candidate {title}</h1><p>{days}; {len(label):,} test examples, {label.mean():.2%} bought.</p>"]
    body.append("<ul>" + "".join(f"<li>{html.escape(each)}</li>" for each in verdict.reasons) + "</ul>")
    body += [_table(figures, name, words) for name, words in SLICES.items()]
    body.append(
        f'<img alt="ROC, precision and recall, reliability, lift" src="{_plots(evaluation.probability, label)}">'
    )
    body.append(f'<h2>early in a session, and by slice</h2><img alt="ROC-AUC by slice" src="{_slice_plots(figures)}">')
    page = f"<!doctype html><meta charset=utf-8><title>Evaluation</title><style>{_STYLE}</style>{''.join(body)}"
    path.write_text(page, encoding="utf-8")


def _table(figures: list[Figure], slice_name: str, words: str) -> str:
    cells = {(each.contender, each.metric): each for each in figures if each.slice == slice_name}
    contenders = sorted({contender for contender, _ in cells})
    metrics = [each for each in METRICS if any(metric == each for _, metric in cells)]
    if not contenders:
        return ""
    head = "".join(f"<th>{METRICS[each]}</th>" for each in metrics)
    lines = [
        f"<tr><td>{each}</td>" + "".join(f"<td>{_cell(cells.get((each, metric)))}</td>" for metric in metrics) + "</tr>"
        for each in contenders
    ]
    return f"<h2>{words}</h2><table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


def _cell(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.value:.4f}<br><small>{figure.low:.4f} … {figure.high:.4f}</small>"


def _slice_plots(figures: list[Figure]) -> str:
    """A data: address of one PNG: ROC-AUC early in a session, and in the other slices, with intervals."""
    found = [each for each in figures if each.metric == "roc_auc" and each.contender != CONSTANT]
    early = [(int(each.slice.removeprefix("after_")), each) for each in found if each.slice.startswith("after_")]
    others = [each for each in found if not each.slice.startswith("after_")]
    names = list(dict.fromkeys(each.slice for each in others))
    canvas = _canvas(height=3 + 0.25 * len(names))
    left, right = canvas.subplots(1, 2)
    for number, contender in enumerate(sorted({each.contender for each in found})):
        line = sorted(((place, each) for place, each in early if each.contender == contender), key=lambda each: each[0])
        _with_intervals(left, [place + number / 10 for place, _ in line], [each for _, each in line], contender, "o-")
        own = [each for each in others if each.contender == contender]
        places = [names.index(each.slice) + number / 6 for each in own]
        right.errorbar([each.value for each in own], places, xerr=_intervals(own), fmt="o", ms=4, label=contender)
    left.set(title="early intent", xlabel="events of the session so far", ylabel="ROC-AUC")
    right.set(title="slices", xlabel="ROC-AUC", yticks=range(len(names)), yticklabels=names)
    right.invert_yaxis()
    left.legend()
    return _as_address(canvas)


def _with_intervals(axis: Any, x: list[float], figures: list[Figure], label: str, style: str) -> None:
    axis.errorbar(x, [each.value for each in figures], yerr=_intervals(figures), fmt=style, ms=4, label=label)


def _intervals(figures: list[Figure]) -> np.ndarray:
    """(2, len(figures)): how far each interval reaches below and above."""
    reach = [(each.value - each.low, each.high - each.value) for each in figures]
    return np.maximum(np.array(reach).reshape(-1, 2).T, 0)


def _canvas(height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(11, height), layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas


def _as_address(canvas: Any) -> str:
    stream = io.BytesIO()
    canvas.savefig(stream, format="png", dpi=90)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _plots(probability: dict[str, np.ndarray], label: np.ndarray) -> str:
    """A data: address of one PNG."""
    canvas = _canvas(height=9)
    axes = canvas.subplots(2, 2).ravel()
    for name, each in sorted(probability.items()):
        _curves(axes, name, each, label)
    for axis, (title, x, y) in zip(
        axes,
        (
            ("ROC", "false alarms", "buyers found"),
            ("Precision and recall", "buyers found", "precision"),
            ("Reliability", "predicted", "bought"),
            ("Lift", "share of examples, likeliest first", "times the average"),
        ),
        strict=True,
    ):
        axis.set(title=title, xlabel=x, ylabel=y)
        axis.legend()
    axes[0].plot([0, 1], [0, 1], color="#bbb", lw=1)
    axes[2].plot([0, 1], [0, 1], color="#bbb", lw=1)
    return _as_address(canvas)


def _curves(axes: Any, name: str, probability: np.ndarray, label: np.ndarray) -> None:
    ranked = label[np.argsort(-probability, kind="stable")]
    hit, shown = np.cumsum(ranked), np.arange(1, len(ranked) + 1)
    thin = np.unique(np.linspace(0, len(ranked) - 1, 400).astype(int))
    axes[0].plot(((shown - hit) / max((~label).sum(), 1))[thin], (hit / max(hit[-1], 1))[thin], label=name)
    axes[1].plot((hit / max(hit[-1], 1))[thin], (hit / shown)[thin], label=name)
    bins = reliability(name, probability, label)
    axes[2].plot([each.predicted for each in bins], [each.bought for each in bins], "o-", label=name, ms=4)
    axes[3].plot((shown / len(ranked))[thin], (hit / shown / max(label.mean(), 1e-9))[thin], label=name)
