"""Text fields in a shop's words → typed fields of the contract, as one Ibis expression that no row can make fail."""

from collections.abc import Mapping as MappingType
from datetime import date, datetime

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from intent_platform.events.contract import CONTRACTS, EVENT_FIELDS, ITEM_FIELDS
from intent_platform.events.mapping import Mapping

UTC = dt.Timestamp(timezone="UTC")
LAST_UNIX_SECOND = 253_402_300_799  # end of the year 9999
TRUE_WORDS = ("true", "t", "1", "yes", "y")


@ibis.udf.scalar.builtin(signature=((dt.string, dt.string), dt.Timestamp()))
def try_strptime(text, pattern):
    """DuckDB: NULL where the text does not fit the pattern."""


@ibis.udf.scalar.builtin(name="timezone", signature=((dt.string, dt.Timestamp()), UTC))
def at_time_zone(zone, local_time):
    """DuckDB: the instant at which clocks in the zone show the time."""


@ibis.udf.scalar.builtin(signature=((dt.int64,), dt.Timestamp()))
def make_timestamp(microseconds):
    """DuckDB: microseconds since 1970 as a time without zone."""


@ibis.udf.scalar.builtin(signature=((dt.string,), dt.string))
def sha256(text):
    """DuckDB: hexadecimal SHA-256."""


def mapped_rows(rows: ir.Table, mapping: Mapping, midnights: MappingType[date, datetime]) -> ir.Table:
    """Event rows of the contract from `fields` columns; adds day, is_ignored and <number>_text for the rules.

    `rows` has the mapping's fields as text, pseudonyms already in place of ids, `line` and `unreadable`. `midnights`
    says when the days begin, newest first; an event before them all has no day.
    """
    text = {each.name: _given(rows, mapping, each.name) for each in EVENT_FIELDS}
    occurred_at = _instant(text["occurred_at"], mapping)
    typed = rows.select(
        "line",
        "unreadable",
        event_type=_our_word(text["event_type"], mapping),
        occurred_at=occurred_at,
        day=_day(occurred_at, midnights),
        given_event_id=_unless_blank(text["event_id"]),
        is_ignored=text["event_type"].isin(mapping.ignored_event_types or ("",)).fill_null(False),
        price_text=text["price"],
        quantity_text=text["quantity"],
        rating_text=text["rating"],
        price=_number(text["price"], mapping).round(6),
        quantity=_whole(_number(text["quantity"], mapping)),
        rating=_number(text["rating"], mapping).try_cast("float32"),
        **{name: text[name] for name in _plain_text_fields()},
    )
    return typed.mutate(event_id=ibis.coalesce(typed.given_event_id, _content_digest(typed)))


def mapped_items(rows: ir.Table, mapping: Mapping) -> ir.Table:
    """Item rows of the contract; updated_at and is_available may be NULL."""
    text = {each.name: _given(rows, mapping, each.name) for each in ITEM_FIELDS}
    typed = {
        "price": _number(text["price"], mapping),
        "is_available": text["is_available"].lower().isin(TRUE_WORDS),
        "updated_at": _instant(text["updated_at"], mapping),
    }
    return rows.select("line", "unreadable", **{**text, **typed})


def text_or_null(rows: ir.Table, mapping: Mapping, name: str) -> ir.StringValue:
    return rows[name] if name in mapping.columns else ibis.null("string")


def _plain_text_fields() -> list[str]:
    made = ("event_id", "event_type", "occurred_at")
    return [each.name for each in CONTRACTS["events"] if each.longest and each.name not in made]


def _given(rows: ir.Table, mapping: Mapping, name: str) -> ir.StringValue:
    """A field's text, else its constant, else NULL."""
    if name in mapping.constants:
        return ibis.literal(mapping.constants[name])
    return text_or_null(rows, mapping, name)


def _our_word(word: ir.StringValue, mapping: Mapping) -> ir.StringValue:
    return ibis.cases(
        *((word == theirs, ours) for theirs, ours in mapping.event_types.items()), else_=ibis.null("string")
    )


def _number(text: ir.StringValue, mapping: Mapping) -> ir.FloatingValue:
    plain = text.replace(mapping.decimal, ".") if mapping.decimal != "." else text
    return plain.try_cast("float64")


def _whole(number: ir.FloatingValue) -> ir.IntegerValue:
    """NULL for a fraction, which the cast alone would round."""
    rounded = number.try_cast("int32")
    return (rounded.cast("float64") == number).ifelse(rounded, ibis.null("int32"))


def _unless_blank(text: ir.StringValue) -> ir.StringValue:
    is_id = (text >= "!") | text.re_search(r"\S")  # blanks sort before "!", so the search is for few
    return is_id.ifelse(text, ibis.null("string"))


def _instant(text: ir.StringValue, mapping: Mapping) -> ir.TimestampValue:
    """Microseconds; the session's TimeZone (the mapping's) holds for ISO 8601 texts without an offset."""
    if mapping.time_format == "iso8601":
        return text.try_cast(UTC)
    if mapping.time_format.startswith("unix_"):
        seconds = text.try_cast("float64") / (1000 if mapping.time_format == "unix_milliseconds" else 1)
        in_range = seconds.between(0, LAST_UNIX_SECOND).ifelse(seconds, ibis.null("float64"))
        return at_time_zone("UTC", make_timestamp((in_range * 1_000_000).round().cast("int64")))
    parsed = try_strptime(text, mapping.time_format)
    return at_time_zone(mapping.time_zone, parsed)


def _day(occurred_at: ir.TimestampValue, midnights: MappingType[date, datetime]) -> ir.DateValue:
    """By comparison with a few midnights: a conversion to the time zone of each row costs as much as all its rules."""
    begun = ((occurred_at >= ibis.literal(midnight), ibis.literal(day)) for day, midnight in midnights.items())
    return ibis.cases(*begun, else_=ibis.null("date"))


def _content_digest(typed: ir.Table) -> ir.StringValue:
    """Id of an event without one: its whole mapped content. Keyed, since the owner's id in it is a keyed pseudonym."""
    names = [each.name for each in EVENT_FIELDS if each.name != "event_id"]
    parts = [ibis.coalesce(typed[name].cast("string"), "") for name in names]
    return sha256(ibis.literal("\x1f").join(parts)).substr(0, 32)
