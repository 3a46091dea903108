"""Every way for an event to be wrong: one named function each, as a vectorised Ibis expression.

A function's name is the value of `broken_rule` in the quarantine, in quality.rule_account, in docs/contract.md and in
the message that refuses a day. A row gets the first rule that it breaks, in the order of RULES.
`rows` has the mapped columns of `mapped_rows` (events/typing.py): the contract's fields, `<field>_text` as found,
and `unreadable`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import ibis
import ibis.expr.types as ir

from intent_platform.events.contract import EVENT_FIELDS, limit

ITEM_EVENTS = ("view", "click", "add_to_cart", "remove_from_cart", "purchase", "rating", "impression")
TEXT_FIELDS = tuple(each for each in EVENT_FIELDS if each.longest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Which events may come in a day's files: [earliest, end), both UTC."""

    earliest: datetime  # start of the day less the allowed lateness
    end: datetime  # end of the day in the shop's time zone


Rule = Callable[[ir.Table, Window], ir.BooleanValue]


def row_torn(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """The row cannot be taken apart: too few or too many fields, an open quote, no JSON object, or an object or a list
    as a field's value."""
    return rows.unreadable == "row_torn"


def encoding_broken(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """The row holds bytes that are no text in the file's encoding, or a NUL."""
    return rows.unreadable == "encoding_broken"


def row_too_long(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """The row is longer than 1 MiB; only its beginning is kept."""
    return rows.unreadable == "row_too_long"


def event_type_ignored(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """The mapping says to leave this kind of event out; it does not count against the day."""
    return rows.is_ignored


def event_type_unknown(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """The word for the kind of event is missing, or the mapping does not know it."""
    return rows.event_type.isnull()


def user_missing(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """Neither a user id nor an anonymous id; a blank one is none."""
    return rows.user_id.isnull() & rows.anonymous_id.isnull()


def occurred_at_unreadable(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """The time is missing or not in the mapping's format."""
    return rows.occurred_at.isnull()


def occurred_outside_window(rows: ir.Table, window: Window) -> ir.BooleanValue:
    """An event happens before the end of its file's day, and at most max_lateness_hours before that day began."""
    return (rows.occurred_at < ibis.literal(window.earliest)) | (rows.occurred_at >= ibis.literal(window.end))


def item_missing(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """A view, click, cart, purchase, rating or impression names its item."""
    return rows.event_type.isin(ITEM_EVENTS) & rows.item_id.isnull()


def query_missing(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """A search has a query text."""
    return (rows.event_type == "search") & rows.query_text.isnull()


def price_absurd(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """The price is no number, negative, infinite, or beyond ten million."""
    return _outside_limits(rows, "price")


def quantity_absurd(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """The quantity is no whole number from 1 to 100,000."""
    return _outside_limits(rows, "quantity")


def rating_absurd(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """The rating is no number from 0 to 10."""
    return _outside_limits(rows, "rating")


def rating_missing(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """A rating event carries its stars."""
    return (rows.event_type == "rating") & rows.rating.isnull()


def currency_absurd(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """The currency is not three capital letters (ISO 4217)."""
    return rows.currency.notnull() & ~rows.currency.re_search("^[A-Z]{3}$")


def text_too_long(rows: ir.Table, _: Window) -> ir.BooleanValue:
    """An id, a word or a query is longer than the contract allows."""
    return ibis.or_(*((rows[each.name].length() > each.longest).fill_null(False) for each in TEXT_FIELDS))


RULES: tuple[Rule, ...] = (
    row_torn,
    encoding_broken,
    row_too_long,
    event_type_ignored,
    event_type_unknown,
    user_missing,
    occurred_at_unreadable,
    occurred_outside_window,
    item_missing,
    query_missing,
    price_absurd,
    quantity_absurd,
    rating_absurd,
    rating_missing,
    currency_absurd,
    text_too_long,
)

NOT_COUNTED_AS_REJECTED = frozenset({event_type_ignored.__name__})
"""Set aside on purpose: kept in the quarantine, but not held against the day."""


def first_broken_rule(rows: ir.Table, window: Window) -> ir.StringValue:
    """Name of the first rule a row breaks, or NULL: the row keeps the contract."""
    return ibis.cases(*((rule(rows, window), rule.__name__) for rule in RULES), else_=ibis.null("string"))


def _outside_limits(rows: ir.Table, name: str) -> ir.BooleanValue:
    """Text was given, but it is no number within the contract's limits (NaN is within none)."""
    bounds, value = limit(name), rows[name]
    is_fine = (value >= bounds.low) & (value <= bounds.high)
    return rows[f"{name}_text"].notnull() & ~is_fine.fill_null(False)
