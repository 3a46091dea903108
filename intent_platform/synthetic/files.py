"""The daily files: what was received on each day, dirt and stragglers included, and the truth beside it."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from intent_platform.synthetic.chance import Ints
from intent_platform.synthetic.clock import DAY_MS
from intent_platform.synthetic.contract import HEADER, Columns, Renderer, Texts, file_bytes, lines
from intent_platform.synthetic.dirt import Dirt, dirty_lines

Shard = dict[str, NDArray[Any]]
"""One day's rows, in order of time: the fields of Rows, and will_buy."""

_LINES_PER_WRITE = 100_000
_NEXT_DAY_RATIO = 0.8  # of late events; the rest come a day later still


class DailyFiles:
    """Writes day after day; remembers only yesterday's lines and those still on their way."""

    def __init__(self, out: Path, renderer: Renderer, dirt: Dirt, *, first_day: date, days: int, seed: int) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        """By received day: rows_written, clean (distinct valid events, the late ones too), and lines of each dirt."""
        self._out, self._renderer, self._dirt = out, renderer, dirt
        self._first_day, self._days, self._seed = first_day, days, seed
        self._yesterday = _no_lines()  # those that came in time
        self._on_their_way: dict[int, list[Texts]] = {}  # by the day they will be received on

    def write(self, day: int, shard: Shard) -> None:
        """Write events/ and truth/ of this day, given what occurred on it; days must come in order."""
        name = (self._first_day + timedelta(days=day)).isoformat()
        rng = np.random.default_rng([self._seed, 4, day])
        columns = self._renderer.columns(shard)
        _write_truth(self._out / "truth" / f"{name}.parquet", columns, shard, self._renderer)
        dirty = dirty_lines(self._dirt, columns, self._renderer, day, rng)
        texts, late_by = lines(columns), self._days_late(day, len(shard["user"]), rng)
        del columns  # a big day's columns and lines need not lie in memory together
        in_time, in_time_at = _where(texts, late_by == 0), shard["wall_ms"][late_by == 0] - day * DAY_MS
        for wait in (1, 2):
            self._on_their_way.setdefault(day + wait, []).append(_where(texts, late_by == wait))
        late = pa.concat_arrays([_no_lines(), *self._on_their_way.pop(day, [])])
        valid_at = np.concatenate([in_time_at, rng.integers(0, DAY_MS, len(late))])
        again = _some(self._dirt.lines_of("duplicate_in_file", len(texts)), len(valid_at), rng)
        earlier = _some(self._dirt.lines_of("duplicate_from_earlier_file", len(texts)), len(self._yesterday), rng)
        del texts
        strays = pa.concat_arrays([self._yesterday.take(earlier), dirty.lines])
        received = pa.concat_arrays([in_time, late, *pa.chunked_array([in_time, late]).take(again).chunks, strays])
        again_at = rng.integers(valid_at[again], DAY_MS)  # behind its first copy: the sort below is stable
        strays_at = rng.integers(0, DAY_MS, len(strays))
        order = np.argsort(np.concatenate([valid_at, again_at, strays_at]), kind="stable")
        _write_lines(self._out / "events" / f"{name}.csv", received, order)
        self.counts[name] = {
            "rows_written": len(received),
            "clean": len(valid_at),
            "late": len(late),
            "duplicate_in_file": len(again),
            "duplicate_from_earlier_file": len(earlier),
            **dirty.counts,
        }
        self._yesterday = in_time

    def _days_late(self, day: int, events: int, rng: np.random.Generator) -> Ints:
        """Return 0, 1 or 2 for each event; none is later than the last file."""
        late_by = np.zeros(events, dtype=np.int64)
        late = _some(self._dirt.lines_of("late", events), events, rng)
        late_by[late] = np.where(rng.random(len(late)) < _NEXT_DAY_RATIO, 1, 2)
        return np.where(day + late_by < self._days, late_by, 0)


def _write_lines(path: Path, texts: Texts, order: Ints) -> None:
    with path.open("wb") as file:
        file.write(HEADER)
        for start in range(0, len(order), _LINES_PER_WRITE):
            file.write(file_bytes(texts.take(order[start : start + _LINES_PER_WRITE])))


def _write_truth(path: Path, columns: Columns, shard: Shard, renderer: Renderer) -> None:
    known_as = pc.if_else(pc.equal(columns["user_id"], b""), columns["anonymous_id"], columns["user_id"])
    truth = {
        "event_id": columns["event_id"].cast(pa.large_string()),
        "user_id": known_as.cast(pa.large_string()),
        "occurred_at": renderer.instants(shard["wall_ms"]),
        "posterior": shard["posterior"],
        "will_buy": shard["will_buy"],
    }
    pq.write_table(pa.table(truth), path, compression="zstd")


def _some(count: int, of: int, rng: np.random.Generator) -> Ints:
    return rng.choice(of, min(count, of), replace=False) if of else np.empty(0, dtype=np.int64)


def _where(texts: Texts, mask: NDArray[np.bool_]) -> Texts:
    return texts.filter(pa.array(mask))


def _no_lines() -> Texts:
    return pa.array([], type=pa.large_binary())
