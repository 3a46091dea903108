"""What is learned from and judged on: (position, asked_at) with its purchase label and its next item, split by time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

import numpy as np

from intent_platform import sequences
from intent_platform.model.rows import US_PER_HOUR, Rows, micros
from intent_platform.settings import Settings

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """E examples in order of (position, asked_at)."""

    position: np.ndarray  # int64 (E,): the newest row that is known
    asked_at: np.ndarray  # int64 (E,) µs: at the row itself, or a midnight between it and the user's next row
    will_buy: np.ndarray  # bool (E,): a purchase in (asked_at, asked_at + horizon], in another order than the row's
    next_item: np.ndarray  # int64 (E,): position in the catalogue of the next other item within the horizon; −1: none
    is_day_end: np.ndarray  # bool (E,): asked at a midnight, as the daily refresh asks
    user: np.ndarray  # int64 (E,)

    def __len__(self) -> int:
        return len(self.position)

    def take(self, which: np.ndarray) -> "Examples":
        return Examples(**{name: getattr(self, name)[which] for name in self.__dataclass_fields__})


def find_days(partitions: Sequence[str], newest: date, settings: Settings) -> list[date]:
    """The published days that a training looks at, oldest first."""
    days = sorted(date.fromisoformat(each.removeprefix("day=")) for each in partitions)
    return [each for each in days if newest - timedelta(days=settings.training_days) < each <= newest]


def make_examples(rows: Rows, item: np.ndarray, split: sequences.Split, settings: Settings) -> dict[Part, Examples]:
    """item: (R,) catalogue positions. Examples of each part lie on its days only; labels reach into the gap behind."""
    labelled = sequences.label(rows.table, settings.horizon_hours)
    will_buy = labelled["will_buy"].combine_chunks().to_numpy(zero_copy_only=False).astype(bool)
    next_item = _next_items(rows, item, settings)
    found: dict[Part, Examples] = {}
    for part in PARTS:
        bounds = [_day_bounds(day, settings) for day in getattr(split, part)]
        at_rows = _rows_on(rows, bounds)
        midnights = _midnights(rows, [end for _, end in bounds], settings)
        found[part] = joined(
            Examples(
                position=at_rows,
                asked_at=rows.at[at_rows],
                will_buy=will_buy[at_rows],
                next_item=next_item[at_rows],
                is_day_end=np.zeros(len(at_rows), bool),
                user=rows.user[at_rows],
            ),
            midnights,
        )
    return found


def end_of_day(day: date, settings: Settings) -> datetime:
    """The moment at which the day ends in the shop's time zone, in UTC."""
    return datetime.combine(day + timedelta(days=1), time(), settings.zone).astimezone(UTC)


def day_end(day: date, settings: Settings) -> int:
    """The same in µs."""
    return micros(end_of_day(day, settings))


def _day_bounds(day: date, settings: Settings) -> tuple[int, int]:
    return day_end(day - timedelta(days=1), settings), day_end(day, settings)


def _rows_on(rows: Rows, bounds: list[tuple[int, int]]) -> np.ndarray:
    is_on = np.zeros(len(rows), bool)
    for start, end in bounds:
        is_on |= (rows.at >= start) & (rows.at < end)
    return np.flatnonzero(is_on)


def _midnights(rows: Rows, ends: list[int], settings: Settings) -> Examples:
    """Everyone with an event in the history_days before each midnight, asked there."""
    everyone = np.arange(rows.users)
    position, asked_at = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for end in ends:
        last = rows.first_after(everyone, np.full(rows.users, end - 1)) - 1
        is_known = (last >= rows.starts[:-1]) & (end - rows.at[last] < settings.history_days * 24 * US_PER_HOUR)
        position.append(last[is_known])
        asked_at.append(np.full(int(is_known.sum()), end))
    positions, moments = np.concatenate(position), np.concatenate(asked_at)
    return Examples(
        position=positions,
        asked_at=moments,
        will_buy=buys_within(rows, rows.user[positions], moments, settings),
        next_item=np.full(len(positions), -1),
        is_day_end=np.ones(len(positions), bool),
        user=rows.user[positions],
    )


def buys_within(rows: Rows, users: np.ndarray, moments: np.ndarray, settings: Settings) -> np.ndarray:
    """bool: the user purchases in (moment, moment + horizon]."""
    running = np.concatenate([[0], np.cumsum(rows.is_type("purchase"))])
    first = rows.first_after(users, moments)
    last = rows.first_after(users, moments + settings.horizon_hours * US_PER_HOUR)
    return running[last] > running[first]


def _next_items(rows: Rows, item: np.ndarray, settings: Settings) -> np.ndarray:
    """For each row the next item of its user that is not the row's own; looked for in the next few item rows."""
    count = len(rows)
    following = np.full(count + 1, count)
    has_item = np.where(item >= 0, np.arange(count), count)
    following[:count] = np.minimum.accumulate(has_item[::-1])[::-1] if count else following[:count]
    candidate = following[np.minimum(np.arange(count) + 1, count)]
    padded = np.append(item, -1)
    for _ in range(10):  # a longer run of one item ends in no target
        is_same = (candidate < count) & (padded[candidate] == item)
        if not is_same.any():
            break
        candidate = np.where(is_same, following[np.minimum(candidate + 1, count)], candidate)
    near = np.minimum(candidate, max(count - 1, 0))
    is_target = (
        (candidate < count)
        & (rows.user[near] == rows.user)
        & (rows.at[near] - rows.at <= settings.horizon_hours * US_PER_HOUR)
        & (padded[candidate] != item)
    )
    return np.where(is_target, padded[near], -1)


def joined(*kinds: Examples) -> Examples:
    """All of them, in order."""
    names = Examples.__dataclass_fields__
    together = Examples(**{name: np.concatenate([getattr(each, name) for each in kinds]) for name in names})
    return together.take(np.lexsort((together.asked_at, together.position)))
