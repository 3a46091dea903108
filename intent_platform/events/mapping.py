"""A shop's own log described in one file, sources/<shop>.toml; see docs/mapping.md for every key."""

import hashlib
import re
import tomllib
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from intent_platform.errors import MappingDoesNotFit, MappingInvalid
from intent_platform.events.contract import CONTRACTS
from intent_platform.paths import resource_folder

FILE_FORMATS = ("csv", "jsonl", "parquet")
TIME_WORDS = ("iso8601", "unix_seconds", "unix_milliseconds")
REQUIRED = {"events": ("event_type", "occurred_at"), "catalogue": ("item_id", "title")}
OWNER_FIELDS = ("user_id", "anonymous_id")
SHOWN_NAMES = 40
MOST_WORDS = 12  # kinds of events that an error lists
KNOWN_KEYS = {
    "": {"kind", "file", "time", "numbers", "columns", "constants", "event_types", "ignore"},
    "file": {"format", "delimiter", "quote", "has_header", "encoding", "columns", "null_words"},
    "time": {"format", "time_zone"},
    "numbers": {"decimal"},
    "ignore": {"columns", "event_types"},
}


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """How a shop's files become rows of the contract. Field = our name; column = the shop's."""

    name: str
    kind: str  # events or catalogue
    file_format: str
    columns: MappingType[str, str]  # our field → the shop's column
    constants: MappingType[str, str] = field(default_factory=dict)  # our field → the value of every row
    event_types: MappingType[str, str] = field(default_factory=dict)  # the shop's word → ours
    ignored_event_types: tuple[str, ...] = ()  # set aside under the rule event_type_ignored
    ignored_columns: tuple[str, ...] = ()
    delimiter: str = ","
    quote: str = '"'
    has_header: bool = True
    header: tuple[str, ...] = ()  # the columns in order, where the file does not say
    encoding: str = "utf-8"
    null_words: tuple[str, ...] = ("",)
    time_format: str = "iso8601"  # or unix_seconds, unix_milliseconds, or a strptime pattern
    time_zone: str = "UTC"  # of times that carry none
    decimal: str = "."
    digest: str = ""  # of the TOML file

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def check_fit(self, present: Sequence[str], where: str) -> None:
        """MappingDoesNotFit unless the file has every mapped column; it names what is there instead."""
        missing = sorted({column for column in self.columns.values() if column not in present})
        if missing:
            raise MappingDoesNotFit(
                f"{where}: mapping {self.name!r} needs column{'s' if len(missing) > 1 else ''} "
                f"{', '.join(map(repr, missing))}; the file has {_shown_names(present)}. "
                f"Mend sources/{self.name}.toml, or name the right mapping with --source."
            )


def _shown_names(names: Sequence[str]) -> str:
    """What a file has instead. One name that is none betrays a log without header, whose row stays unseen."""
    if not all(map(_looks_like_name, names)):
        hint = "withheld; a log without header needs file.has_header = false"
        return f"{len(names)} columns whose names look like values ({hint})"
    return ", ".join(map(repr, names[:SHOWN_NAMES])) or "no columns at all"


def shown_words(words: MappingType[str, int]) -> str:
    """Words for event types with their counts, most frequent first; many different ones may be somebody's ids."""
    if len(words) > MOST_WORDS or not all(map(_looks_like_name, words)):
        return f"{len(words)} different ones (withheld)"
    by_count = sorted(words.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{word!r} {rows:,}" for word, rows in by_count)


def _looks_like_name(text: str) -> bool:
    """A column name or event word as it may stand in an error; what could be somebody's id may not."""
    return bool(re.fullmatch(r"[^\W\d][\w .\-/]{0,63}", text)) and sum(map(str.isdigit, text)) <= 3


def load_mapping(name_or_path: str, kind: str = "events") -> Mapping:
    """Read a mapping by name (sources/<name>.toml) or by path; MappingInvalid says what is wrong with it."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = resource_folder("sources") / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in resource_folder("sources").glob("*.toml")))
        raise MappingInvalid(f"There is no mapping {path}; known: {known}. Copy one of them and change its words.")
    content = path.read_bytes()
    try:
        document = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MappingInvalid(f"{path} is not TOML: {error}.") from error
    mapping = _build(path, document, hashlib.sha256(content).hexdigest())
    if mapping.kind != kind:
        raise MappingInvalid(f"{path} is a mapping of kind {mapping.kind!r}; here one of kind {kind!r} is needed.")
    return mapping


def _build(path: Path, document: dict, digest: str) -> Mapping:
    _check_keys(path, document)
    file, time = document.get("file", {}), document.get("time", {})
    ignore, numbers = document.get("ignore", {}), document.get("numbers", {})
    mapping = Mapping(
        name=path.stem,
        kind=document.get("kind", "events"),
        file_format=file.get("format", "csv"),
        columns=document.get("columns", {}),
        constants={key: str(value) for key, value in document.get("constants", {}).items()},
        event_types=document.get("event_types", {}),
        ignored_event_types=tuple(ignore.get("event_types", ())),
        ignored_columns=tuple(ignore.get("columns", ())),
        delimiter=file.get("delimiter", ","),
        quote=file.get("quote", '"'),
        has_header=file.get("has_header", True),
        header=tuple(file.get("columns", ())),
        encoding=file.get("encoding", "utf-8"),
        null_words=("", *file.get("null_words", ())),
        time_format=time.get("format", "iso8601"),
        time_zone=time.get("time_zone", "UTC"),
        decimal=numbers.get("decimal", "."),
        digest=digest,
    )
    _check(path, mapping)
    return mapping


def _check_keys(path: Path, document: dict) -> None:
    unknown = sorted(set(document) - KNOWN_KEYS[""])
    for section in ("file", "time", "numbers", "ignore"):
        unknown += [f"{section}.{key}" for key in sorted(set(document.get(section, {})) - KNOWN_KEYS[section])]
    if unknown:
        raise MappingInvalid(f"{path} has unknown keys: {', '.join(unknown)}; docs/mapping.md lists the known ones.")


def _check(path: Path, mapping: Mapping) -> None:
    problems = [*_field_problems(mapping), *_format_problems(mapping)]
    if problems:
        raise MappingInvalid(f"{path}: " + "; ".join(problems) + ".")


def _field_problems(mapping: Mapping) -> list[str]:
    if mapping.kind not in CONTRACTS:
        return [f"kind is {mapping.kind!r}; give one of {', '.join(CONTRACTS)}"]
    contract = {each.name: each for each in CONTRACTS[mapping.kind]}
    given = {**mapping.columns, **mapping.constants}
    problems = [
        f"[columns] or [constants] names {name!r}, which is not in the contract"
        for name in sorted(given)
        if name not in contract
    ]
    problems += [
        f"{name!r} has neither a column nor a constant" for name in REQUIRED[mapping.kind] if name not in given
    ]
    if mapping.kind == "events":
        if not any(name in given for name in OWNER_FIELDS):
            problems.append("neither 'user_id' nor 'anonymous_id' has a column")
        words = contract["event_type"].words
        problems += [
            f"[event_types] gives {ours!r} for {word!r}; our words are {', '.join(words)}"
            for word, ours in mapping.event_types.items()
            if ours not in words
        ]
    return problems


def _format_problems(mapping: Mapping) -> list[str]:
    problems = []
    if mapping.file_format not in FILE_FORMATS:
        problems.append(f"file.format is {mapping.file_format!r}; give one of {', '.join(FILE_FORMATS)}")
    if mapping.time_format not in TIME_WORDS and "%" not in mapping.time_format:
        problems.append(
            f"time.format is {mapping.time_format!r}; give {', '.join(TIME_WORDS)} or a pattern such as '%Y-%m-%d'"
        )
    if len(mapping.delimiter) != 1 or len(mapping.quote) > 1:
        problems.append("file.delimiter must be one character, file.quote one or none")
    if mapping.has_header and mapping.header:
        problems.append("file.columns is for files without a header; with it set file.has_header to false")
    if mapping.file_format == "csv" and not mapping.has_header and not mapping.header:
        problems.append("file.has_header is false, so file.columns must list the columns in order")
    try:
        "".encode(mapping.encoding)
    except LookupError:
        problems.append(f"file.encoding is {mapping.encoding!r}, which Python does not know")
    try:
        ZoneInfo(mapping.time_zone)
    except (KeyError, ValueError, OSError):
        problems.append(f"time.time_zone is {mapping.time_zone!r}; give an IANA name such as Europe/Berlin")
    return problems
