"""`intent …`: parses, builds Settings, calls one function. Every step of the DAGs can be run from here."""

import csv
import getpass
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Literal

import sqlalchemy as sa
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from intent_platform import __version__, db
from intent_platform.errors import DatabaseUnavailable, IntentError
from intent_platform.keys import create_missing_keys
from intent_platform.log import log_to_stderr
from intent_platform.paths import resource_folder
from intent_platform.priority import give_way
from intent_platform.settings import Settings

if TYPE_CHECKING:
    from intent_platform.events.replay import QuarantinedRow

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
bench = typer.Typer(no_args_is_help=True, help="What the models are worth, beside simple peers; figures as JSON.")
app.add_typer(bench, name="bench")

Day = Annotated[str, typer.Argument(metavar="DAY", help="A day such as 2026-08-21, in the shop's time zone.")]
Source = Annotated[str | None, typer.Option(help="Mapping: a name in sources/ or a path to a TOML file.")]
FilePath = Annotated[str | None, typer.Option("--path", help="A file, a folder of files, or an fsspec address.")]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options of `intent` itself."""


def main() -> None:
    """Run a command; what a user can mend ends with a message and status 1, without a traceback."""
    log_to_stderr(logging.WARNING)
    try:
        app()
    except IntentError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


@app.command()
def keys() -> None:
    """Make the secret keys that are missing, as 0600 files in INTENT_HOME/keys."""
    settings = Settings.from_env()
    made = create_missing_keys(settings)
    print(f"Made {', '.join(made)} in {settings.home / 'keys'}." if made else "All keys are there; nothing was made.")


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema."""
    with db.serve(Settings.from_env()) as settings:
        print(f"The schema is at version {db.migrate(settings)}.")


@app.command()
def day(
    day: Day,
    source: Source = None,
    path: FilePath = None,
    max_rejected_ratio: Annotated[
        float | None, typer.Option(help="Share of bad rows to allow, from 0 to below 1.")
    ] = None,
) -> None:
    """The whole day: validate its files, build sequences, refresh profiles."""
    from intent_platform import daily

    with _served() as settings:
        give_way(settings.niceness)
        received, refreshed = daily.run_day(
            _day(day), settings, source=source, path=path, max_rejected_ratio=max_rejected_ratio
        )
    for account in received.accounts:
        print(
            f"{account.file}: {account.rows_read:,} rows read = {account.accepted:,} accepted + "
            f"{account.quarantined:,} quarantined + {account.duplicate:,} duplicate"
        )
    print(f"Published days: {', '.join(map(str, received.days_published)) or 'none'}.")
    print(f"{refreshed.users:,} profiles scored by {refreshed.release_id}, {refreshed.rows_changed:,} rows changed.")


@app.command()
def catalogue(source: Source = None, path: FilePath = None) -> None:
    """Read the shop's item file into the catalogue."""
    from intent_platform import daily

    with _served() as settings:
        print(f"{daily.load_catalogue(settings, source=source, path=path).items:,} items are known.")


@app.command()
def quarantine(
    day: Day,
    out: Annotated[Path, typer.Option(help="File to write, readable by you alone.")],
    source: Annotated[Literal["inbox"] | None, typer.Option(help="Rejected events instead of rows of files.")] = None,
) -> None:
    """Unseal the rows quarantined for DAY as JSON Lines, to be mended and given to `intent replay --fixed`; or events
    that the inbox rejected, to be found in the backend and put again."""
    quarantined = _rejected_events if source else _quarantined_rows
    with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o600)  # the file may have been there, open to others
        rows = quarantined(_day(day))
        stream.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
    print(f"{len(rows):,} rows written to {out}. They hold raw ids: delete the file when you are done.")


def _quarantined_rows(day: date) -> list["QuarantinedRow"]:
    from intent_platform import daily

    return list(daily.quarantined(day, Settings.from_env()))


def _rejected_events(day: date) -> list["QuarantinedRow"]:
    from intent_platform import replaying

    with _served() as settings:
        return list(replaying.rejected_events(day, settings))


@app.command()
def replay(
    day: Day,
    source: Source = None,
    fixed: Annotated[Path | None, typer.Option(help="Mended rows, as `intent quarantine` writes them.")] = None,
) -> None:
    """Let quarantined rows of DAY in that are good now, exactly once; `--source inbox`: rejected events."""
    from intent_platform import daily
    from intent_platform.inbox.door import NAME

    if source == NAME:
        _replay_inbox(_day(day), fixed)
        return
    with _served() as settings:
        report = daily.replay_quarantine(_day(day), settings, source=source, fixed=fixed)
    for account in report.accounts:
        print(f"{account.file}: {account.accepted:,} accepted, {account.quarantined:,} still in quarantine.")
    print(f"Published days: {', '.join(map(str, report.days_published)) or 'none, no row is good now'}.")


def _replay_inbox(day: date, fixed: Path | None) -> None:
    from intent_platform import replaying

    with _served() as settings:
        report = replaying.replay_inbox(day, settings, datetime.now(UTC), fixed=fixed)
    by_rule = ", ".join(f"{rule} {events:,}" for rule, events in sorted(report.still_rejected.items()))
    print(
        f"{report.accepted:,} accepted, {report.duplicate:,} duplicate, {report.still_rejected.total():,} still "
        f"rejected{f' ({by_rule})' if by_rule else ''}."
    )
    print(f"Published days: {', '.join(map(str, report.days_published)) or 'none'}.")
    if report.awaits_validation:
        print(f"{day} is not in the lake: run `intent day {day}`, or these events train no model.")


@app.command()
def refresh(day: Day) -> None:
    """Build sequences and refresh profiles of a published day."""
    from intent_platform import daily

    with _served() as settings:
        give_way(settings.niceness)
        daily.build_sequences(_day(day), settings)
        report = daily.refresh_profiles(_day(day), settings)
    print(f"{report.users:,} profiles scored by {report.release_id}, {report.rows_changed:,} rows changed.")


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One SQL statement; it runs in a read-only transaction.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Query the platform's tables."""
    if ";" in statement.rstrip().removesuffix(";"):
        raise IntentError("Give one statement, without a semicolon in it: what stands behind one could write.")
    with _served() as settings, db.connect(settings) as connection:
        connection.execute(sa.text("SET TRANSACTION READ ONLY"))
        try:
            result = connection.execution_options(no_parameters=True).exec_driver_sql(statement)
        except sa.exc.DBAPIError as error:
            raise IntentError(str(error.orig).strip()) from error
        if not result.returns_rows:
            raise IntentError("The statement gives no rows, and nothing is written here.")
        _print_rows(list(result.keys()), result.all(), as_csv=as_csv)


@app.command()
def url() -> None:
    """Print the database's address, with its password, as psql and drivers of other languages take it."""
    with _served() as settings:
        print(db.libpq_url(settings))


@app.command()
def profile(
    user: Annotated[str, typer.Argument(help="A user_id of profiles.user_profile, or a raw id of the shop.")],
) -> None:
    """Show one shopper readably, with titles of the recommended items."""
    with _served() as settings, db.connect(settings) as connection:
        found = _profile_row(connection, settings, user)
        _print_profile(
            found, db.query(connection, "recommendations_of_user", shop=settings.shop, user_id=found["user_id"])
        )


@app.command()
def search(
    query: Annotated[str, typer.Argument(help='Words in any language, a price too: "wireless mouse under 30".')],
    k: Annotated[int, typer.Option(min=1, help="How many items.")] = 10,
    user: Annotated[str | None, typer.Option(help="Whose interests count too: a user_id, or the raw id.")] = None,
) -> None:
    """Find items by text."""
    from intent_platform.index.registry import current_release
    from intent_platform.index.search import search as search_items

    with _served() as settings:
        found = current_release(settings)
        if found is None:
            raise IntentError("No release serves yet: run `intent day` or `intent train` first.")
        answer = search_items(found[0], query, k, interests=_interests(settings, user) if user else None)
    rows = [
        (place, hit.title or hit.item_id, hit.category, hit.price, hit.currency)
        for place, hit in enumerate(answer.hits, 1)
    ]
    _print_rows(["", "title", "category", "price", "currency"], rows, as_csv=False)
    print("\n".join(answer.notes))


@app.command()
def train(day: Day, force: Annotated[bool, typer.Option(help="Train although it is not due.")] = False) -> None:
    """Train on the days up to DAY, evaluate beside the opponents, and promote what wins."""
    from intent_platform import training

    with _served() as settings:
        report = training.retrain(_day(day), settings, is_forced=force)
    print(f"{'Promoted' if report.is_promoted else 'Not promoted'}: {report.reason}")
    if report.awaits_approval:
        print(f'It awaits your approval: intent promote {report.release_id} --reason "…"')
    if report.report:
        print(f"The evaluation is in {report.report}.")


@app.command()
def index() -> None:
    """Index today's items with the model that serves, and promote the new release."""
    from intent_platform import training

    with _served() as settings:
        report = training.rebuild_index(settings)
    news = "" if report.is_new else " The same items gave the same index, which served already."
    print(f"{report.items:,} items, recall@20 {report.recall_at_20:.3f}; {report.release_id} serves.{news}")


@app.command()
def promote(release_id: str, reason: Annotated[str, typer.Option(help="Why; kept in the registry.")]) -> None:
    """Let a release serve: a newer one, or any older one again."""
    from intent_platform import training

    with _served() as settings:
        promotion = training.promote(
            settings, release_id, reason=reason, decided_by=getpass.getuser(), clock=datetime.now(UTC)
        )
    print(f"{promotion.release_id} serves, promotion {promotion.promotion_number}.")


@app.command()
def rollback(reason: Annotated[str, typer.Option(help="Why; kept in the registry.")]) -> None:
    """Let the release serve again that served before the current one."""
    from intent_platform import training

    with _served() as settings:
        before = training.current_promotion(settings)
        promotion = training.rollback(settings, reason=reason, decided_by=getpass.getuser(), clock=datetime.now(UTC))
    assert before is not None  # else there was nothing to go back to
    print(
        f"{promotion.release_id} serves again, as promotion {promotion.promotion_number}, in place of "
        f"{before.release_id} (promotion {before.promotion_number}). A profile changes with the shopper's next event, "
        "all of them with `intent refresh DAY`."
    )


@app.command()
def put(
    events: Annotated[str, typer.Argument(help="A JSON object or an array of them; -: from standard input.")],
) -> None:
    """Put events into the inbox, as a shop's backend does by `SELECT inbox.put(…)`."""
    with _served() as settings:
        try:
            given = sys.stdin.buffer.read().decode() if events == "-" else events
            with db.connect(settings) as connection:
                rows = db.query(connection, "put_events", events=given, shop=settings.shop)
        except UnicodeDecodeError as error:
            raise IntentError(
                f"Events are UTF-8, and byte {error.start:,} of these is none; nothing was taken."
            ) from error
        except sa.exc.DBAPIError as error:
            raise IntentError(_said(error)) from error
        print(f"{rows[0]['taken']:,} events wait for the scorer: `intent nearline`, or `intent nearline --drain` once.")
        for shop in _unknown_shops(given, settings):
            print(
                f"Nobody knows shop {shop!r}: no scorer was seen there, and no release serves it. If that is its name, "
                "its events wait until, with INTENT_SHOP set to it, `intent day DAY` has made a release and `intent "
                "nearline` runs.",
                file=sys.stderr,
            )


@app.command()
def nearline(
    workers: Annotated[int, typer.Option(min=1, help="Scorer processes; one keeps a core busy.")] = 1,
    drain: Annotated[bool, typer.Option("--drain", help="End once nothing waits in the inbox.")] = False,
    metrics_port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65_535,
            help="Serve Prometheus metrics on this port, of further workers on the next ones; 0: none.",
        ),
    ] = 0,
    metrics_address: Annotated[
        str, typer.Option(help="Where to serve them; 0.0.0.0: to all who reach this machine.")
    ] = "127.0.0.1",
) -> None:
    """Score events from inbox.event as they come, until SIGTERM or Ctrl-C."""
    from intent_platform.nearline import run

    logging.getLogger("intent_platform").setLevel(logging.INFO)  # it runs for months, and says what happens meanwhile
    with _served() as settings:
        tally = run(settings, workers=workers, drain=drain, metrics_port=metrics_port, metrics_address=metrics_address)
    if tally is not None:
        print(f"{tally.events:,} events in {tally.batches:,} batches, {tally.rejected:,} rejected.")


@app.command()
def watch() -> None:
    """Look after the inbox: tell what waits, who scores, how much is rejected; score what waits if nobody does; forget
    what was kept long enough."""
    from intent_platform import watching

    with _served() as settings:
        health = watching.watch(settings, datetime.now(UTC))
    print(f"{health.waiting:,} events wait, {health.alive} scorers live, {health.rejected_ratio:.2%} rejected lately.")


@app.command()
def parity(day: Day, users: Annotated[int, typer.Option(min=1, help="At most so many shoppers.")] = 5_000) -> None:
    """Replay DAY through the nearline code and compare its profiles with the batch's."""
    from intent_platform.parity import check_parity

    with _served() as settings:
        report = check_parity(_day(day), settings, most_users=users)
    print(
        f"{report.users:,} shoppers, {report.events:,} events: equal; numbers within {report.largest_difference:.2g}."
    )


@app.command()
def shop(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    days: int = 14,
    users: int = 2000,
    seed: int = 7,
    first_day: Annotated[str, typer.Option(help="First day of events.")] = "2026-08-01",
) -> None:
    """Write the files of a shop that never was, with known truth."""
    from intent_platform.synthetic import write_shop

    print(write_shop(out, first_day=_day(first_day), days=days, users=users, seed=seed))


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the story.")] = False,
    source: Annotated[str | None, typer.Option(help="Mapping of a real shop's file; needs --events and --day.")] = None,
    events: Annotated[Path | None, typer.Option(help="That file.")] = None,
    day: Annotated[str | None, typer.Option(help="The day it is about.")] = None,
) -> None:
    """The whole loop on this machine: embedded Postgres, Airflow, fourteen days of a shop that never was, a story."""
    from intent_platform.demo import run_demo

    run_demo(Settings.from_env(), is_once=once, source=source, events=events, day=_day(day) if day else None)


@bench.command()
def next_item(
    data: Annotated[Path, typer.Option(help="Folder of a log's files, or the one that holds the logs' folders.")],
    protocol: Annotated[
        str | None, typer.Option(metavar="diginetica|beauty|office", help="Which log and split; left out: all three.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many passes over the log.")] = 12,
) -> None:
    """Predict the next item on a public log, the whole catalogue ranked."""
    from intent_platform.bench import next_item
    from intent_platform.bench.public_logs import PROTOCOLS

    if protocol is not None and protocol not in PROTOCOLS:
        raise typer.BadParameter(f"{protocol!r} is no protocol; give one of {', '.join(PROTOCOLS)}.")
    for name in [protocol] if protocol else PROTOCOLS:
        next_item.run(name, data, epochs)


@bench.command()
def purchase(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of day files of REES46's form (2019-10-01.csv). Left out: the synthetic shop."),
    ] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Shoppers of the synthetic shop; 12,000.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days of the synthetic shop; 28.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many passes over the days.")] = 4,
) -> None:
    """Predict purchases: of the synthetic shop beside its own truth, or of a real excerpt by five folds."""
    from intent_platform.bench import purchase

    if data is None:
        purchase.run_synthetic(users or 12_000, days or 28, epochs)
    elif users or days:
        raise typer.BadParameter("--users and --days are of the synthetic shop; leave them out, or --data.")
    else:
        purchase.run_excerpt(data, epochs)


@app.command()
def folder(name: Annotated[str, typer.Argument(help="sql, sources, dags or plugins.")]) -> None:
    """Print where the installed package keeps its own files, for Airflow's settings."""
    print(resource_folder(name))


@contextmanager
def _served() -> Iterator[Settings]:
    """Settings with a database that answers; the embedded one is migrated, yours only by `intent migrate`."""
    given = Settings.from_env()
    with db.serve(given) as settings:
        if not given.database_url:
            db.migrate(settings)
        yield settings


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no day; write it as 2026-08-21.") from error


def _said(error: sa.exc.DBAPIError) -> str:
    """What Postgres says of values that it refused: what is wrong, in which line of the JSON, and what to do."""
    told = error.orig.diag  # type: ignore[union-attr]
    line = told.context if (told.context or "").startswith("JSON data, line") else None
    detail = shorten(told.message_detail or "", 200)
    advice = told.message_hint or "Nothing was taken; give a JSON object, or an array of them."
    return " ".join(filter(None, (f"{told.message_primary}.", detail, line, advice)))


def _unknown_shops(events: str, settings: Settings) -> list[str]:
    """Shops of these events that nobody knows; none where that cannot be seen."""
    listed = json.loads(events)
    named = [each.get("shop") for each in (listed if isinstance(listed, list) else [listed])]
    shops = {settings.shop if shop is None else str(shop) for shop in named}
    try:
        with db.connect(settings) as connection:
            return [row["shop"] for row in db.query(connection, "unknown_shops", shops=sorted(shops))]
    except (sa.exc.ProgrammingError, DatabaseUnavailable):  # intent_producer puts events and sees nothing
        return []


def _profile_row(connection: sa.Connection, settings: Settings, user: str) -> sa.RowMapping:
    if found := db.query(connection, "profile_of_user", shop=settings.shop, user_id=user):
        return found[0]
    from intent_platform.events.pseudonyms import Pseudonymiser

    of = Pseudonymiser.of(settings)
    pseudonyms = of.of_user(user), of.of_anonymous(user)
    for each in pseudonyms:
        if found := db.query(connection, "profile_of_user", shop=settings.shop, user_id=each):
            return found[0]
    raise IntentError(
        f"Shop {settings.shop!r} has no profile of {user!r}, nor under the pseudonyms that a user ({pseudonyms[0]}) or "
        f"a device ({pseudonyms[1]}) of that raw id has; try `intent sql` on profiles.user_profile."
    )


def _interests(settings: Settings, user: str) -> dict[str, float]:
    with db.connect(settings) as connection:
        found = _profile_row(connection, settings, user)
    return {each["category"]: each["weight"] for each in found["top_categories"]}


def _print_profile(row: sa.RowMapping, recommended: Sequence[sa.RowMapping]) -> None:
    intent = "unknown" if row["purchase_intent"] is None else f"{row['purchase_intent']:.1%}"
    why = f" ({row['intent_missing_reason']})" if row["intent_missing_reason"] else ""
    interests = ", ".join(f"{each['category']} {each['weight']:.0%}" for each in row["top_categories"]) or "none yet"
    print(f"{row['user_id']} at {row['valid_at']:%Y-%m-%d %H:%M} UTC, by {row['release_id']} ({row['source']})")
    print(f"  buys within {row['horizon_hours']} hours: {intent}, {row['intent_band']}{why}")
    print(f"  last seen {row['last_event_at']:%Y-%m-%d %H:%M} UTC: {row['last_event_type']}")
    print(
        f"  7 days: {row['events_7d']} events, {row['add_to_carts_7d']} carts; 30 days: {row['purchases_30d']} "
        f"purchases, {row['spent_30d']:.2f} {row['spent_currency'] or ''}"
    )
    print(f"  interests: {interests}")
    columns = ["rank", "title", "price", "currency", "reason"]
    _print_rows(columns, [tuple(each[name] for name in columns) for each in recommended], as_csv=False)


def _print_rows(columns: Sequence[str], rows: Sequence[Sequence[object]], *, as_csv: bool) -> None:
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows([_json_or_itself(value) for value in row] for row in rows)
        return
    table = Table(*map(escape, columns))
    for row in rows:  # brackets in a title are no mark-up
        table.add_row(*("" if value is None else escape(str(value)) for value in row))
    Console().print(table)
    print(f"{len(rows)} rows")


def _json_or_itself(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


if __name__ == "__main__":
    main()
