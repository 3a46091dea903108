"""The policy file of gate and item index: margins, slices and bounds, read once and checked."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from intent_platform.errors import SettingInvalid
from intent_platform.settings import Settings

DEFAULT = Path(__file__).with_name("policy.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """policy.toml; each margin says how far behind still counts as level, in the metric's own unit."""

    purchase: dict[str, float]  # metric → margin
    items: dict[str, float]
    slice_names: tuple[str, ...]
    slice_min_examples: int
    slice_log_loss: float
    max_calibration_error: float
    max_ms: float
    min_index_recall: float
    max_index_score_error: float


_SECTIONS = {
    "purchase": {"log_loss", "roc_auc"},
    "items": {"recall_at_20", "mrr_at_20"},
    "slices": {"names", "min_examples", "log_loss"},
    "calibration": {"max_error"},
    "latency": {"max_ms"},
    "index": {"recall_at_20", "max_score_error"},
}


def load_policy(settings: Settings) -> Policy:
    """The file that INTENT_POLICY names, or the package's own. SettingInvalid names what is wrong with it."""
    path = Path(settings.policy) if settings.policy else DEFAULT
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingInvalid(f"The policy {path} cannot be read ({error}); mend it, or unset INTENT_POLICY.") from error
    _check(path, given)
    policy = Policy(
        purchase=given["purchase"],
        items=given["items"],
        slice_names=tuple(given["slices"]["names"]),
        slice_min_examples=given["slices"]["min_examples"],
        slice_log_loss=given["slices"]["log_loss"],
        max_calibration_error=given["calibration"]["max_error"],
        max_ms=given["latency"]["max_ms"],
        min_index_recall=given["index"]["recall_at_20"],
        max_index_score_error=given["index"]["max_score_error"],
    )
    for number in _numbers(policy):
        if isinstance(number, bool) or not isinstance(number, int | float) or number < 0:
            raise SettingInvalid(f"The policy {path} has {number!r} where a number from 0 up belongs.")
    return policy


def _check(path: Path, given: dict[str, Any]) -> None:
    wanted = {f"{section}.{key}" for section, keys in _SECTIONS.items() for key in keys}
    there = {
        f"{section}.{key}" for section, keys in given.items() for key in (keys if isinstance(keys, dict) else [""])
    }
    if wanted != there:
        missing, unknown = sorted(wanted - there), sorted(there - wanted)
        raise SettingInvalid(f"The policy {path} lacks {missing or 'nothing'} and has unknown {unknown or 'nothing'}.")


def _numbers(policy: Policy) -> list[Any]:
    single = [
        getattr(policy, each.name) for each in fields(policy) if each.name not in ("purchase", "items", "slice_names")
    ]
    return [*single, *policy.purchase.values(), *policy.items.values()]
