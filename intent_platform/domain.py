"""The words of the platform as values: what crosses modules, frozen and described."""

from dataclasses import dataclass
from datetime import date, datetime

EVENT_TYPES = (
    "view",
    "search",
    "click",
    "add_to_cart",
    "remove_from_cart",
    "purchase",
    "refund",
    "rating",
    "impression",
)
"""What a shopper (or, for impression and refund, the shop) can do. Order is not meaningful; vocabularies sort."""

DEFAULT_SHOP = "main"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileAccount:
    """One row of quality.file_account: what became of a received file's rows."""

    shop: str
    received_on: date
    file: str  # its name, without folders
    source: str  # the mapping it was read with
    file_digest: str  # sha256 of its bytes as received
    rows_read: int  # data rows: a header and blank lines are none
    accepted: int
    quarantined: int
    duplicate: int  # repeats inside this file
    by_rule: dict[str, int]  # quarantined rows by the first rule they broke

    def __post_init__(self) -> None:
        settled = self.accepted + self.quarantined + self.duplicate
        assert self.rows_read == settled, f"{self.file}: {self.rows_read} rows read, {settled} accounted for"


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanDay:
    """One row of quality.clean_day: a published day of events, merged from the files that hold some of it."""

    shop: str
    day: date
    rows_accepted: int  # in all files received so far, before the merge
    duplicate: int  # the same event_id in another file or on another received day
    rows: int
    content_digest: str  # free of row order


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """The newest row of registry.promotion for a shop: which release serves, and since which decision."""

    shop: str
    promotion_number: int
    release_id: str
    decided_at: datetime
