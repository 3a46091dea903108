"""Kinds of test examples that are judged apart: when they are asked, of whom, and how early in a session."""

import numpy as np

from intent_platform.model.examples import Examples
from intent_platform.model.rows import Rows

EARLY = (1, 2, 4, 6, 8, 10)
MOST_VALUES = 5  # of a device, market or category: the most frequent
LEAST_EXAMPLES = 200


def slices_of(rows: Rows, test: Examples) -> dict[str, np.ndarray]:
    """Name → bool (E,). `all` are the examples right after an event; every other slice but day_end is part of it.

    new, returning: whether the shopper had a session before. after_N: the session's N-th event was the newest.
    device=…, market=…, category=…: of the newest event, most frequent values only. Small slices are left out.
    """
    at_event = ~test.is_day_end
    session_start = rows.first_after(test.user, rows.session_at[test.position] - 1)
    place = test.position - session_start + 1
    has_past = session_start > rows.starts[test.user]
    found = {"new": at_event & ~has_past, "returning": at_event & has_past}
    found |= {f"after_{count}": at_event & (place == count) for count in EARLY}
    for name in ("device", "market", "category"):
        found |= _by_value(rows, test, at_event, name)
    large = {name: mask for name, mask in found.items() if mask.sum() >= LEAST_EXAMPLES}
    return {"all": at_event, "day_end": test.is_day_end, **large}


def _by_value(rows: Rows, test: Examples, at_event: np.ndarray, name: str) -> dict[str, np.ndarray]:
    encoded = rows.table[name].combine_chunks().dictionary_encode()
    code = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)[test.position]
    counts = np.bincount(code[at_event & (code >= 0)], minlength=len(encoded.dictionary))
    kept = np.argsort(-counts, kind="stable")[:MOST_VALUES]
    return {f"{name}={encoded.dictionary[int(each)].as_py()}": at_event & (code == each) for each in kept}
