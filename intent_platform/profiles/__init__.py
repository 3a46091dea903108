"""Scores → profile tables. The caller owns the transaction."""

from intent_platform.profiles.upsert import Stamp, upsert, write_items

__all__ = ["Stamp", "upsert", "write_items"]
