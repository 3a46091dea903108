"""The dirt that real logs have, in amounts that are known exactly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent_platform.errors import SettingInvalid
from intent_platform.synthetic.chance import Bools, Ints
from intent_platform.synthetic.clock import DAY_MS
from intent_platform.synthetic.contract import Columns, Renderer, Texts, lines

MAX_LATENESS_MS: Final = 2 * DAY_MS
_IMPOSSIBLE_PRICES: Final = (b"-5.00", b"1000000000000", b"abc")
_NOT_UTF8: Final = "运动鞋".encode("gbk")
_FIRST_DIRTY_NUMBER: Final = 1 << 63


@dataclass(frozen=True, kw_only=True, slots=True)
class Dirt:
    """How many lines of each kind a file gets, as a share of the day's clean events, rounded to whole lines."""

    duplicate_in_file_ratio: float = 0.004
    duplicate_from_earlier_file_ratio: float = 0.002
    late_ratio: float = 0.006
    """Of a day's events, how many come with the next day's file (four in five) or the one after that."""

    # Each of these has an event_id of its own and must be quarantined; together 0.5 %.
    torn_ratio: float = 0.0007
    too_late_ratio: float = 0.0007
    future_ratio: float = 0.0007
    impossible_price_ratio: float = 0.0008
    unknown_event_type_ratio: float = 0.0007
    broken_encoding_ratio: float = 0.0007
    user_missing_ratio: float = 0.0007

    def __post_init__(self) -> None:
        for name, ratio in asdict(self).items():
            if not 0 <= ratio <= 0.2:
                raise SettingInvalid(f"Dirt.{name} is {ratio}; give a share from 0 to 0.2.")

    def lines_of(self, kind: str, clean_events: int) -> int:
        """Return how many lines of this kind go with so many clean events."""
        return round(float(getattr(self, f"{kind}_ratio")) * clean_events)


QUARANTINED: Final = (
    "torn", "too_late", "future", "impossible_price", "unknown_event_type", "broken_encoding", "user_missing",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class DirtyLines:
    """Lines that must be quarantined, and how many there are of each kind."""

    lines: Texts
    counts: dict[str, int]


def dirty_lines(dirt: Dirt, clean: Columns, renderer: Renderer, day: int, rng: np.random.Generator) -> DirtyLines:
    """Spoil copies of some of the day's events, each under a new event_id; `clean` itself stays as it is."""
    events = len(clean["event_id"])
    made: list[Texts] = []
    counts = {}
    for place, kind in enumerate(QUARANTINED):
        suited = np.flatnonzero(_can_become(kind, clean))
        count = min(dirt.lines_of(kind, events), len(suited))
        chosen = rng.choice(suited, count, replace=False) if count else np.empty(0, dtype=np.int64)
        copies = {name: column.take(chosen) for name, column in clean.items()}
        numbers = np.uint64(_FIRST_DIRTY_NUMBER) + np.arange(count, dtype=np.uint64)
        copies["event_id"] = renderer.event_ids(numbers + np.uint64((day * len(QUARANTINED) + place) << 32))
        made.append(_spoiled(kind, copies, renderer, day, rng))
        counts[kind] = count
    return DirtyLines(lines=pa.concat_arrays(made), counts=counts)


def _can_become(kind: str, clean: Columns) -> Bools:
    """Say which events can be spoiled so that this is the only thing wrong with the line."""
    if kind == "impossible_price":
        suited = pc.not_equal(clean["price"], b"")
    elif kind == "broken_encoding":
        suited = pc.equal(clean["event_type"], b"search")
    elif kind == "torn":  # cut inside quotes, a line would swallow those behind it
        quoted = (pc.match_substring(clean[name].cast(pa.large_string()), '"') for name in ("query_text", "brand"))
        suited = pc.invert(pc.or_(*quoted))
    else:
        return np.ones(len(clean["event_id"]), dtype=bool)
    return np.asarray(suited)


def _spoiled(kind: str, copies: Columns, renderer: Renderer, day: int, rng: np.random.Generator) -> Texts:
    count = len(copies["event_id"])
    if kind == "torn":
        return pa.array([_torn(line, rng) for line in lines(copies).to_pylist()], type=pa.large_binary())
    replaced: dict[str, Texts] = {}
    if kind == "too_late":
        replaced["occurred_at"] = renderer.times(_too_late_ms(day, count, rng))
    elif kind == "future":
        replaced["occurred_at"] = renderer.times((day + 1) * DAY_MS + rng.integers(60_000, 3 * DAY_MS, count))
    elif kind == "impossible_price":
        prices = rng.integers(len(_IMPOSSIBLE_PRICES), size=count)
        replaced["price"] = pa.array([_IMPOSSIBLE_PRICES[n] for n in prices], type=pa.large_binary())
    elif kind == "unknown_event_type":
        replaced["event_type"] = _repeated(b"hover", count)
    elif kind == "broken_encoding":
        replaced["query_text"] = _repeated(_NOT_UTF8, count)
    else:
        replaced["user_id"] = replaced["anonymous_id"] = _repeated(b"", count)
    return lines(copies | replaced)


def _torn(line: bytes, rng: np.random.Generator) -> bytes:
    """Cut the line somewhere before its last comma, so that it has too few fields; what is left is still UTF-8."""
    text = line.decode()
    return (text[: int(rng.integers(1, text.rindex(",")))] + "\n").encode()


def _too_late_ms(day: int, count: int, rng: np.random.Generator) -> Ints:
    return day * DAY_MS - MAX_LATENESS_MS - rng.integers(3_600_000, 5 * DAY_MS, count)


def _repeated(value: bytes, count: int) -> Texts:
    return pa.array([value] * count, type=pa.large_binary())
