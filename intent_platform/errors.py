"""Every error a user can meet. A class docstring says when; the message says what, how many, where, what next."""

from dataclasses import dataclass, field
from datetime import date
from typing import ClassVar


class IntentError(Exception):
    """Base of all errors that end a command with a message instead of a traceback.

    A second argument is advice that is not for a scorer, which tries again by itself: its log tells `what` alone.
    """

    is_transient: ClassVar[bool] = False
    """The same step may succeed by itself a little later, so a scheduler should try again; else a person must act."""

    def __str__(self) -> str:
        return " ".join(map(str, self.args))

    @property
    def what(self) -> str:
        return str(self.args[0]) if self.args else str(self)


class SettingInvalid(IntentError):
    """An environment variable or option has a value the platform cannot work with."""


class MappingInvalid(IntentError):
    """A sources/<shop>.toml file is missing, is not TOML, or maps something that is not in the contract."""


class MappingDoesNotFit(IntentError):
    """The file at hand lacks a column that the mapping names."""


class FileUnreadable(IntentError):
    """A received file is missing, empty, a stream cut short, or not of the format that its mapping says."""

    is_transient = True  # it may still be arriving


class CatalogueInvalid(IntentError):
    """A catalogue has no usable rows, or lacks titles."""


class LakeConflict(IntentError):
    """Somebody else published to the lake between reading its manifest and swapping it."""

    is_transient = True


class LakeUnavailable(IntentError):
    """The lake, or the folder for temporary files, cannot be read or written: disk full, no permission, store away."""

    is_transient = True


class DatabaseUnavailable(IntentError):
    """Postgres cannot be reached, or is not at the schema version that this release needs."""

    is_transient = True


class EncoderMissing(IntentError):
    """The text encoder's folder or package is not there, or its weights have another digest."""


class ReleaseInvalid(IntentError):
    """A release names a part that is missing, or whose bytes do not match their digest."""


class IndexInvalid(IntentError):
    """An item index cannot be built from what is there, cannot be read, or finds less than the policy asks."""


class ReleaseMoved(IntentError):
    """Another release was promoted while one was being made, or was telling profiles, for the same shop."""

    is_transient = True


class NotEnoughData(IntentError):
    """A step needs days, labels or items that have not been published yet."""


class TrainingFailed(IntentError):
    """The training process ended before it had left a candidate."""

    is_transient = True


class KeyMissing(IntentError):
    """A secret key is in neither the environment nor its 0600 file, is open to others, or is not the shop's."""


@dataclass(kw_only=True)
class DayRefused(IntentError):
    """A day's files broke the contract in more rows than allowed, or failed a critical expectation."""

    day: date
    rows_read: int
    rejected: int
    allowed_ratio: float
    by_rule: dict[str, int] = field(default_factory=dict)
    failed_expectations: tuple[str, ...] = ()
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        share = self.rejected / self.rows_read if self.rows_read else 1.0
        lines = [
            f"{self.day}: {self.rejected:,} of {self.rows_read:,} events rejected "
            f"({100 * share:.2f} %, allowed {100 * self.allowed_ratio:.2f} %)."
        ]
        if self.by_rule:
            counts = ", ".join(f"{rule} {rows:,}" for rule, rows in sorted(self.by_rule.items(), key=lambda kv: -kv[1]))
            lines.append(f"By rule: {counts}. Rows: {self.where}")
        if self.failed_expectations:
            lines.append("Failed expectations: " + "; ".join(self.failed_expectations) + ".")
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)


class ScorerFailed(IntentError):
    """A nearline worker ended with an error."""


class ParityBroken(IntentError):
    """The nearline code says something else of a day than the batch."""


class NearlineUnwell(IntentError):
    """Events wait too long, are rejected too often, or nobody scores them."""
