"""(release, sequences) → profile values. No reads, no writes, no clock: batch and nearline get the same numbers."""

from intent_platform.scoring.score import Scores, score, score_users

__all__ = ["Scores", "score", "score_users"]
