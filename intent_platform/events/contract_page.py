"""docs/contract.md, made from contract and rules: python -m intent_platform.events.contract_page > docs/contract.md"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from intent_platform.events.contract import EVENT_FIELDS, ITEM_FIELDS, Field
from intent_platform.events.rules import NOT_COUNTED_AS_REJECTED, RULES

KINDS = {
    pa.string(): "text",
    pa.bool_(): "boolean",
    pa.int32(): "whole number",
    pa.float32(): "number",
    pa.float64(): "number",
}

HEAD = """\
# The contract

Made from `intent_platform/events/contract.py` and `rules.py`; change those, then run
`python -m intent_platform.events.contract_page > docs/contract.md`. A test compares the two.

A shop's own columns and words are brought to these fields by a [mapping](mapping.md). Times are stored in UTC with
microseconds. User ids and anonymous ids become keyed pseudonyms before any rule sees them.
"""

ITEMS_TAIL = """\
A catalogue row without `item_id`, or one that cannot be taken apart, is left out; a price outside its limits becomes
NULL. Items that only events have shown get a stub row (`is_stub`).
"""

RULES_HEAD = """\
## Rules

An event gets the first rule that it breaks, in this order. The name is the value of `broken_rule` in the quarantine
and in `quality.rule_account`, and appears in the message that refuses a day.
"""


def contract_page() -> str:
    """The whole page, as Markdown."""
    parts = [
        HEAD,
        *_fields("Event fields", EVENT_FIELDS),
        *_fields("Item fields", ITEM_FIELDS),
        ITEMS_TAIL,
        RULES_HEAD,
        *_rules(),
    ]
    return "\n".join(parts)


def _fields(title: str, fields: Sequence[Field]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| field | kind | in every row | limits | meaning |"
    yield "|---|---|---|---|---|"
    for each in fields:
        kind = KINDS.get(each.kind, "time (UTC)")
        yield f"| `{each.name}` | {kind} | {'yes' if each.is_required else ''} | {_limits(each)} | {each.meaning} |"
    yield ""


def _limits(field: Field) -> str:
    limits = []
    if field.words:
        limits.append("one of " + ", ".join(f"`{word}`" for word in field.words))
    if field.low is not None and field.high is not None:
        limits.append(f"{field.low:,g} to {_plain(field.high)}")
    if field.longest:
        limits.append(f"at most {field.longest:,} characters")
    return "; ".join(limits)


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:,}"


def _rules() -> Iterator[str]:
    yield "| broken rule | in words | counts against the day |"
    yield "|---|---|---|"
    for rule in RULES:
        says = " ".join((rule.__doc__ or "").split())
        counts = "no" if rule.__name__ in NOT_COUNTED_AS_REJECTED else "yes"
        yield f"| `{rule.__name__}` | {says} | {counts} |"
    yield ""


if __name__ == "__main__":
    print(contract_page(), end="")
