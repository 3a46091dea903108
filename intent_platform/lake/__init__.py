"""The lake: Parquet files that nobody sees until one manifest swap publishes them, whole."""

from intent_platform.lake.store import DataFile, Lake, PartitionKey, Snapshot

__all__ = ["DataFile", "Lake", "PartitionKey", "Snapshot"]
