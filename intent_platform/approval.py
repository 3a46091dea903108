"""A person's yes or no to what the gate let pass: what they are shown, and what their answer changes."""

from datetime import datetime

from intent_platform import db
from intent_platform.domain import Promotion
from intent_platform.errors import ReleaseInvalid
from intent_platform.index.registry import add_decision, promote
from intent_platform.index.retention import remove_old_releases
from intent_platform.settings import Settings

SHOWN = ("roc_auc", "pr_auc", "log_loss", "calibration_error", "recall_at_20", "mrr_at_20")


def question(settings: Settings, release_id: str) -> str:
    """Markdown: why the gate let the release's model pass, and its figures beside the others'."""
    with db.connect(settings) as connection:
        model = _model_of(settings, release_id)
        (decision,) = db.query(connection, "newest_decision", shop=settings.shop, model_digest=model)
        rows = db.query(connection, "evaluation_of_model", shop=settings.shop, model_digest=model)
    whole = {(row["contender"], row["metric"]): row for row in rows if row["slice"] == "all"}
    metrics = [each for each in SHOWN if any(metric == each for _, metric in whole)]
    lines = [f"- {reason}" for reason in decision["reasons"]]
    lines += ["", f"| contender | {' | '.join(metrics)} |", f"|---|{'---|' * len(metrics)}"]
    for contender in sorted({name for name, _ in whole}):
        cells = [_cell(whole.get((contender, metric))) for metric in metrics]
        lines.append(f"| {contender} | {' | '.join(cells)} |")
    return "\n".join(lines)


def answer(
    settings: Settings, release_id: str, *, is_approved: bool, decided_by: str, clock: datetime
) -> Promotion | None:
    """Promote the release, or write down that somebody refused its model; what serves then stays."""
    if is_approved:
        promotion = promote(
            settings, release_id, reason=f"Approved by {decided_by}.", decided_by=decided_by, clock=clock
        )
        remove_old_releases(settings, now=clock)
        return promotion
    with db.connect(settings) as connection:
        model = _model_of(settings, release_id)
        add_decision(connection, settings, model, "refused", [f"Refused by {decided_by}."], decided_by, clock)
    return None


def _model_of(settings: Settings, release_id: str) -> str:
    with db.connect(settings) as connection:
        rows = db.query(connection, "registered_release", shop=settings.shop, release_id=release_id)
    if not rows:
        raise ReleaseInvalid(f"Release {release_id!r} is not in registry.release of shop {settings.shop!r}.")
    return rows[0]["model_digest"]


def _cell(row) -> str:
    return "" if row is None else f"{row['value']:.4f} ({row['low']:.4f} … {row['high']:.4f})"
