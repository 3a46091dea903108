"""All settings, read once from INTENT_* environment variables; each explains itself below its name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from intent_platform.domain import DEFAULT_SHOP
from intent_platform.errors import SettingInvalid


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Immutable; `Settings.from_env()` reads INTENT_<NAME IN CAPITALS> for each field and checks it."""

    home: Path = Path("var")
    """Folder of what the platform keeps beside the lake: keys, caches, Data Docs, reports, benchmark figures."""

    lake: str = ""
    """Folder or object-storage address (s3://…) of the Parquet lake and the releases; empty: home/lake."""

    database_url: str = ""
    """postgresql+psycopg2://user:password@host/intent; empty: the platform's own embedded Postgres."""

    postgres_home: str = ""
    """Folder of the embedded Postgres (data, socket, passwords); empty: chosen by user, see db/embedded.py."""

    shop: str = DEFAULT_SHOP
    """Which shop this process works for; part of every key."""

    time_zone: str = "UTC"
    """IANA name of the shop's time zone: it decides when a day begins."""

    source: str = "native"
    """Mapping for the daily files: the name of a file sources/<name>.toml, or a path to one."""

    events_path: str = ""
    """Where a day's files arrive: a path with {day} in it, for example /drop/events/{day}.csv."""

    catalogue_source: str = "native_catalogue"
    """Mapping for the catalogue file."""

    catalogue_path: str = ""
    """Where the catalogue file lies; empty: none, so items are known from events alone."""

    max_rejected_ratio: float = 0.01
    """Share of a day's events that may break the contract before the day is refused."""

    max_lateness_hours: int = 48
    """How long after the end of its day an event may still arrive and be counted in it."""

    session_gap_minutes: int = 30
    """Silence that ends a session."""

    horizon_hours: int = 24
    """purchase_intent is P(the user buys something within this many hours)."""

    history_days: int = 30
    """How far back a shopper's window reaches, for counts and for the model."""

    window_events: int = 50
    """How many of a shopper's newest events the model sees at most; at least half of them, if there are as many."""

    encoder: str = ""
    """Text encoder: a Hugging Face name or a folder; empty: the offline default of the `demo` extra."""

    encoder_tuning: str = "none"
    """none, lora or adalora: how each training tunes the text encoder to what shoppers searched, clicked and bought."""

    encoder_tuning_steps: int = 200
    """Upper bound on steps of that tuning, 64 pairs each; early stopping may end sooner."""

    device: str = "auto"
    """cuda, cpu, or auto (cuda when there is one). For trainings, indices and text; scoring takes the CPU."""

    seed: int = 7
    """Start of every random generator in training."""

    min_labels: int = 200
    """Mature examples of each class (buys, does not) below which the bootstrap release serves."""

    max_epochs: int = 8
    """Upper bound on passes over the training days; early stopping usually ends sooner. A refit takes as many again."""

    training_days: int = 60
    """How many of the newest days a training looks at, test days included."""

    training_every_days: int = 7
    """retrain_classifier trains again when the newest model is at least this old."""

    warm_start: bool = True
    """A training begins near the champion's weights where they still fit; 0: from scratch."""

    require_approval: bool = False
    """1: what the gate lets pass serves only after a person approved it, in Airflow or by `intent promote`."""

    policy: str = ""
    """The policy file (TOML) of gate and item index; empty: the package's own, intent_platform/model/policy.toml."""

    nearline_max_lag_s: int = 60
    """How long an event may wait in the inbox before watch_nearline raises the alarm."""

    niceness: int = 10
    """By how much a training or refresh yields the processor to scorers on its machine, as nice(1) has it; 0: not."""

    recommendations: int = 10
    """Items recommended per shopper."""

    recommendations_per_brand: int = 4
    """At most so many of them of one brand, while there are others to show."""

    recommendations_per_category: int = 6
    """At most so many of them of one category, while there are others to show."""

    flat_index_max_items: int = 20_000
    """Above this many items FAISS scans short codes and ranks the best of them again, instead of scanning vectors."""

    index_memory_mib: int = 4096
    """A FAISS file that is larger is paged in from disk where it is needed, instead of read whole."""

    keep_releases: int = 5
    """Releases that stay on disk: the newest that served, the current one among them; at least 2, to go back to."""

    quarantine_days: int = 90
    """How long sealed quarantine rows are kept."""

    memory_limit_mib: int = 1024
    """What DuckDB may hold in memory before it spills to disk."""

    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads for DuckDB, torch and FAISS."""

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_time_zone()
        if not self.shop or not self.shop.replace("_", "").replace("-", "").isalnum():
            raise SettingInvalid(f"INTENT_SHOP is {self.shop!r}; give letters, digits, '-' and '_' only.")
        if self.database_url and not self.database_url.startswith("postgresql+psycopg2://"):
            raise SettingInvalid("INTENT_DATABASE_URL must begin with postgresql+psycopg2:// (name the driver).")

    def _check_ranges(self) -> None:
        if not 0 <= self.max_rejected_ratio < 1:
            raise SettingInvalid(
                f"INTENT_MAX_REJECTED_RATIO is {self.max_rejected_ratio}; "
                "give a share from 0 (refuse any rejection) to below 1."
            )
        if not 0 <= self.max_lateness_hours <= 24 * 30:
            raise SettingInvalid(f"INTENT_MAX_LATENESS_HOURS is {self.max_lateness_hours}; give 0 to 720.")
        for name in (
            "session_gap_minutes", "horizon_hours", "history_days", "window_events", "memory_limit_mib",
            "recommendations_per_brand", "recommendations_per_category",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise SettingInvalid(f"INTENT_{name.upper()} is {getattr(self, name)}; give 1 or more.")
        if self.keep_releases < 2:
            raise SettingInvalid(
                f"INTENT_KEEP_RELEASES is {self.keep_releases}; give 2 or more, to have one to go back to."
            )
        if self.encoder_tuning not in ("none", "lora", "adalora"):
            raise SettingInvalid(f"INTENT_ENCODER_TUNING is {self.encoder_tuning!r}; give none, lora or adalora.")
        if self.encoder_tuning_steps < 10:
            raise SettingInvalid(f"INTENT_ENCODER_TUNING_STEPS is {self.encoder_tuning_steps}; give 10 or more.")
        if self.device not in ("auto", "cpu", "cuda"):
            raise SettingInvalid(f"INTENT_DEVICE is {self.device!r}; give auto, cpu or cuda.")

    def _check_time_zone(self) -> None:
        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError) as error:
            raise SettingInvalid(
                f"INTENT_TIME_ZONE is {self.time_zone!r}; give an IANA name such as Europe/Berlin."
            ) from error

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    @property
    def lake_root(self) -> str:
        return self.lake or str((self.home / "lake").absolute())

    @property
    def horizon(self) -> timedelta:
        return timedelta(hours=self.horizon_hours)

    def as_environment(self) -> dict[str, str]:
        """The variables from which a child process reads the same settings."""
        return {f"INTENT_{each.name.upper()}": str(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read INTENT_* variables; a value of the wrong type is named with what was expected."""
        environ = os.environ if environ is None else environ
        given: dict[str, Any] = {}
        for each in fields(cls):
            text = environ.get(f"INTENT_{each.name.upper()}", "")
            if text:
                given[each.name] = _parse(each.name, text, each.type)
        return cls(**given)


_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _parse(name: str, text: str, kind: object) -> object:
    try:
        if kind is bool:
            return _BOOLEANS[text.lower()]
        return kind(text) if callable(kind) else text
    except (ValueError, KeyError) as error:
        expected = getattr(kind, "__name__", str(kind))
        raise SettingInvalid(f"INTENT_{name.upper()} is {text!r}; give a value of type {expected}.") from error
