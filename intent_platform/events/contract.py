"""The event contract and the item contract: one list of fields each, from which everything else is made.

The Arrow schemas, the rules' limits, the Great Expectations suite and docs/contract.md come from here.
"""

from dataclasses import dataclass

import pyarrow as pa

from intent_platform.domain import EVENT_TYPES

UTC_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One field of a contract: its type, its meaning, and the limits that its values keep."""

    name: str
    kind: pa.DataType
    meaning: str
    is_required: bool = False  # in every row
    low: float | None = None  # smallest allowed number
    high: float | None = None  # largest allowed number
    longest: int | None = None  # characters
    words: tuple[str, ...] = ()  # the only allowed values


def _text(name: str, meaning: str, *, longest: int = 256, is_required: bool = False) -> Field:
    return Field(name=name, kind=pa.string(), meaning=meaning, longest=longest, is_required=is_required)


def _number(name: str, kind: pa.DataType, meaning: str, *, low: float, high: float) -> Field:
    return Field(name=name, kind=kind, meaning=meaning, low=low, high=high)


EVENT_FIELDS = (
    _text("event_id", "The shop's id of the event; without one, a digest of the mapped row.", is_required=True),
    Field(
        name="event_type",
        kind=pa.string(),
        meaning="What happened, in our words.",
        is_required=True,
        words=EVENT_TYPES,
    ),
    Field(name="occurred_at", kind=UTC_TIME, meaning="When it happened, by the shopper's clock.", is_required=True),
    _text("user_id", "Keyed pseudonym of the known shopper."),
    _text("anonymous_id", "Keyed pseudonym of the device or cookie; may stand beside user_id, which links the two."),
    _text("session_id", "The shop's own session, kept as it is."),
    _text("item_id", "The item looked at, bought, …; a search has none."),
    _text("query_text", "What was typed into the search box.", longest=1000),
    _text("category", "Category path, parts joined by dots.", longest=512),
    _text("brand", "Brand."),
    _number("price", pa.float64(), "Price of one piece, in `currency`.", low=0, high=10_000_000),
    _text("currency", "ISO 4217 code.", longest=3),
    _number("quantity", pa.int32(), "Pieces.", low=1, high=100_000),
    _number("rating", pa.float32(), "Stars.", low=0, high=10),
    _text("order_id", "The order a purchase belongs to."),
    _text("device", "Kind of device."),
    _text("market", "Country, language or branch."),
)

ITEM_FIELDS = (
    _text("item_id", "The shop's id of the item.", is_required=True),
    _text("title", "Title as the shop writes it.", longest=2000),
    _text("description", "Description as the shop writes it.", longest=100_000),
    _text("category", "Category path, parts joined by dots.", longest=512),
    _text("brand", "Brand."),
    _number("price", pa.float64(), "Price of one piece, in `currency`.", low=0, high=10_000_000),
    _text("currency", "ISO 4217 code.", longest=3),
    Field(
        name="is_available", kind=pa.bool_(), meaning="Whether it can be bought now; true when the log says nothing."
    ),
    Field(name="updated_at", kind=UTC_TIME, meaning="When the shop last changed it; else when the file was received."),
)

CONTRACTS = {"events": EVENT_FIELDS, "catalogue": ITEM_FIELDS}

EVENT_SCHEMA = pa.schema([pa.field(each.name, each.kind) for each in EVENT_FIELDS])

PROVENANCE_SCHEMA = pa.schema(
    [
        pa.field("day", pa.date32()),  # on which it happened, in the shop's time zone
        pa.field("received_on", pa.date32()),
        pa.field("file", pa.string()),
        pa.field("line", pa.int64()),  # first line of the row in the file, from 1; in Parquet the row's number
    ]
)

ACCEPTED_SCHEMA = pa.schema([*EVENT_SCHEMA, *PROVENANCE_SCHEMA])
"""Rows of the lake's tables `accepted` and `clean`."""

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("received_on", pa.date32()),
        pa.field("file", pa.string()),
        pa.field("line", pa.int64()),
        pa.field("broken_rule", pa.string()),
        pa.field("sealed_row", pa.binary()),  # the raw text, readable only with the private key
    ]
)

ITEM_SCHEMA = pa.schema([*(pa.field(each.name, each.kind) for each in ITEM_FIELDS), pa.field("is_stub", pa.bool_())])


def limit(name: str) -> Field:
    """The event field of that name, for its limits."""
    return next(each for each in EVENT_FIELDS if each.name == name)
