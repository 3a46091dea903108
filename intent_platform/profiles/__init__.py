"""Scores → profile tables. The caller owns the transaction."""

from intent_platform.profiles.upsert import ProfileRows, Stamp, only_news, upsert, write_items

__all__ = ["ProfileRows", "Stamp", "only_news", "upsert", "write_items"]
