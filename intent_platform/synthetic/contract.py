"""From simulated rows to lines of the native event contract, without a loop over rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from intent_platform.synthetic.catalogue import Catalogue
from intent_platform.synthetic.chance import Bools, Ints, scrambled
from intent_platform.synthetic.law import ADD, BUY, LOOK, RATE, REFUND, REMOVE, SEARCH
from intent_platform.synthetic.shoppers import NOTHING

COLUMNS: Final = (
    "event_id", "event_type", "occurred_at", "user_id", "anonymous_id", "session_id", "item_id", "query_text",
    "category", "brand", "price", "currency", "quantity", "rating", "order_id", "device", "market",
)  # fmt: skip
HEADER: Final = (",".join(COLUMNS) + "\n").encode()

_TYPE_OF_ACTION: Final = {
    LOOK: "view",
    SEARCH: "search",
    ADD: "add_to_cart",
    REMOVE: "remove_from_cart",
    BUY: "purchase",
    RATE: "rating",
    REFUND: "refund",
}
_CLICK: Final = len(_TYPE_OF_ACTION)
_MARKETS: Final = (("US", "US", "GB", "DE"), ("CN", "CN", "CN", "SG"))  # by language
_DEVICES: Final = ("mobile", "mobile", "desktop", "tablet")
_MAIN_DEVICE_QUARTERS: Final = 3  # of four visits, on the shopper's own device
_EMAIL_RATIO: Final = 0.15
_ANONYMOUS_RATIO: Final = 0.08  # never log in
_LATE_LOGIN_RATIO: Final = 0.12  # log in at their step 2 to 12, and carry both ids in that one step
_EVENT, _VISIT, _ORDER, _DEVICE = 0x5EED_0001, 0x5EED_0002, 0x5EED_0003, 0x5EED_0004  # salts, apart for each use
_MOST_ROWS: Final = 1 << 20  # of one shopper

Texts: TypeAlias = pa.LargeBinaryArray  # fields ready for CSV: quoted where needed; binary, as some dirt is not UTF-8
Columns: TypeAlias = dict[str, Texts]


@dataclass(frozen=True, kw_only=True, slots=True)
class Identities:
    """Under which ids each shopper shows up."""

    user_ids: Texts  # (users,) empty for those who never log in
    anonymous_ids: Texts  # (users,)
    login_step: Ints  # (users,) first step that carries user_id
    has_device_id: Bools  # (users,) whether steps up to the login carry anonymous_id

    def shown(self, user: Ints, step: Ints) -> tuple[Texts, Texts]:
        """Return user_id and anonymous_id of each row."""
        is_known = step >= self.login_step[user]
        is_device = self.has_device_id[user] & (step <= self.login_step[user])
        return _blank_unless(is_known, self.user_ids.take(user)), _blank_unless(
            is_device, self.anonymous_ids.take(user)
        )


def make_identities(users: int, seed: int) -> Identities:
    """Draw who is known, who is anonymous and who logs in later."""
    rng = np.random.default_rng([seed, 3])
    is_email = rng.random(users) < _EMAIL_RATIO
    lot = rng.random(users)
    never, later = lot < _ANONYMOUS_RATIO, (lot >= _ANONYMOUS_RATIO) & (lot < _ANONYMOUS_RATIO + _LATE_LOGIN_RATIO)
    devices = scrambled(np.arange(users, dtype=np.uint64), seed)
    return Identities(
        user_ids=_texts(
            [f"shopper.{n:06d}@example.com" if email else f"customer-{n:06d}" for n, email in enumerate(is_email)]
        ),
        anonymous_ids=_texts([f"device-{device:016x}" for device in devices]),
        login_step=np.select([never, later], [_MOST_ROWS, rng.integers(2, 13, users)], 0),
        has_device_id=never | later,
    )


class Renderer:
    """Turns the rows of a day, as stored in its shard, into the columns of the contract."""

    def __init__(self, catalogue: Catalogue, identities: Identities, first_day: date, seed: int) -> None:
        table = catalogue.table
        self._identities = identities
        self._first_ms = int(datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC).timestamp()) * 1000
        self._seed = seed
        self._types = _texts([*_TYPE_OF_ACTION.values(), "click"])
        self._type_number = np.array([list(_TYPE_OF_ACTION).index(action) for action in range(len(_TYPE_OF_ACTION))])
        self._queries = _texts(["", *(as_field(query) for query in catalogue.queries)])
        self._items = {
            name: _texts(["", *(as_field(value) for value in table[name].to_pylist())])
            for name in ("item_id", "category", "brand", "price", "currency")
        }
        self._small_numbers = _texts(["", *(str(number) for number in range(1, 10))])
        self._devices, self._markets = _texts(_DEVICES), _texts([name for names in _MARKETS for name in names])

    def columns(self, rows: dict[str, Ints]) -> Columns:
        """Return the columns of COLUMNS, in order, one text per row."""
        user, step = rows["user"], rows["step"]
        user_ids, anonymous_ids = self._identities.shown(user, step)
        kind = np.where(rows["is_click"], _CLICK, self._type_number[rows["action"]])
        has_order = rows["order"] != NOTHING
        own, per_visit = (
            scrambled(n.astype(np.uint64), _DEVICE ^ self._seed) for n in (user, _key(user, rows["visit"]))
        )
        is_own = per_visit % np.uint64(4) < _MAIN_DEVICE_QUARTERS
        market = rows["language"] * 4 + ((own >> np.uint64(8)) % np.uint64(4)).astype(np.int64)
        return {
            "event_id": self._hex(self.event_numbers(rows), _EVENT),
            "event_type": self._types.take(kind),
            "occurred_at": self.times(rows["wall_ms"]),
            "user_id": user_ids,
            "anonymous_id": anonymous_ids,
            "session_id": self._hex(_key(user, rows["visit"]), _VISIT),
            "item_id": self._items["item_id"].take(rows["item"] + 1),
            "query_text": self._queries.take(rows["query"] + 1),
            **{name: self._items[name].take(rows["item"] + 1) for name in ("category", "brand", "price", "currency")},
            "quantity": self._small_numbers.take(rows["quantity"]),
            "rating": self._small_numbers.take(rows["stars"]),
            "order_id": _blank_unless(has_order, self._hex(_key(user, np.maximum(rows["order"], 0)), _ORDER)),
            "device": self._devices.take((np.where(is_own, own, per_visit) >> np.uint64(4)) % np.uint64(4)),
            "market": self._markets.take(market),
        }

    def event_ids(self, numbers: NDArray[np.uint64]) -> Texts:
        """Return the event_id of each number; different numbers have different ids."""
        return self._hex(numbers, _EVENT)

    def event_numbers(self, rows: dict[str, Ints]) -> NDArray[np.uint64]:
        """Return a number of its own for each row; below 2 ** 63, so that dirt can take the rest."""
        return _key(rows["user"], rows["step"] * 8 + rows["slot"])

    def times(self, wall_ms: Ints) -> Texts:
        """Return ISO 8601 with milliseconds and Z."""
        spaced = pc.cast(self.instants(wall_ms).cast(pa.timestamp("ms")), pa.large_string())
        return _joined([pc.binary_replace_slice(spaced, 10, 11, "T").cast(pa.large_binary()), _text(b"Z")], b"")

    def instants(self, wall_ms: Ints) -> pa.TimestampArray:
        """Return wall_ms, which counts from the first day's midnight, as UTC timestamps."""
        return pa.array(wall_ms + self._first_ms).cast(pa.timestamp("ms", tz="UTC"))

    def _hex(self, numbers: NDArray[np.uint64], salt: int) -> Texts:
        mixed = scrambled(numbers, salt ^ (self._seed << 32) & 0xFFFF_FFFF_FFFF_FFFF)
        digits = _HEX_PAIRS[mixed.astype(">u8").view(np.uint8)]
        ends = np.arange(0, 16 * len(numbers) + 1, 16, dtype=np.int64)
        return Texts.from_buffers(pa.large_binary(), len(numbers), [None, pa.py_buffer(ends), pa.py_buffer(digits)])


_HEX_PAIRS: Final = np.array([f"{byte:02x}" for byte in range(256)], dtype="S2").view(np.uint16)


def lines(columns: Columns) -> Texts:
    """Return one CSV line per row, with its line end."""
    *front, last = (columns[name] for name in COLUMNS)
    return _joined([*front, _joined([last, _text(b"\n")], b"")], b",")


def file_bytes(texts: Texts) -> memoryview:
    """Return the texts one after the other, without a copy."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(data)[ends[0] : ends[-1]] if len(texts) else memoryview(b"")


def as_field(value: str) -> str:
    """Quote a value where CSV (RFC 4180) needs it."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([value])
    return out.getvalue()


def _key(user: Ints, number: Ints) -> NDArray[np.uint64]:
    assert number.size == 0 or number.max() < 8 * _MOST_ROWS, "a shopper has more rows than a key has room for"
    return user.astype(np.uint64) * np.uint64(8 * _MOST_ROWS) + number.astype(np.uint64)


def _texts(values: Sequence[str]) -> Texts:
    return pa.array([value.encode() for value in values], type=pa.large_binary())


def _blank_unless(mask: Bools, texts: Texts) -> Texts:
    return pc.if_else(pa.array(mask), texts, _text(b""))


def _joined(texts: Sequence[Any], separator: bytes) -> Texts:
    return pc.binary_join_element_wise(*texts, _text(separator))


def _text(value: bytes) -> Any:
    return pa.scalar(value, pa.large_binary())
