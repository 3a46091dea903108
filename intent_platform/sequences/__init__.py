"""Clean days → one time-ordered sequence per user; labels with maturity; split by time."""

from intent_platform.sequences.account import account_of_days
from intent_platform.sequences.build import SEQUENCE_SCHEMA, are_built, build_days
from intent_platform.sequences.history import (
    IN_ORDER,
    offsets,
    read_history,
    read_touches,
    sample_history,
    user_buckets,
)
from intent_platform.sequences.labels import Split, label, split_by_time

__all__ = [
    "IN_ORDER",
    "SEQUENCE_SCHEMA",
    "Split",
    "account_of_days",
    "are_built",
    "build_days",
    "label",
    "offsets",
    "read_history",
    "read_touches",
    "sample_history",
    "split_by_time",
    "user_buckets",
]
