"""make torture: workers killed and Postgres stopped at random and named points while events come; nothing may be lost.

Replayable: a seed chooses the events, their repeats and order, who is killed where, and when Postgres goes down. At the
end every event must be accepted or rejected once, every profile must count exactly its shopper's events, and no profile
may disagree with its own interests and recommendations. Writes var/bench/torture.json.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
import torch

from intent_platform import db, nearline
from intent_platform.db import embedded
from intent_platform.db.connection import _engine
from intent_platform.errors import DatabaseUnavailable
from intent_platform.events.pseudonyms import Pseudonymiser
from intent_platform.inbox import queue
from intent_platform.nearline import Scorer
from intent_platform.settings import Settings

NOW = datetime(2026, 8, 21, 23, 30, tzinfo=UTC)
SHOPPERS = 40
KINDS = ("view", "view", "add_to_cart", "purchase")
POINTS = (
    (queue, "claim"), (queue, "keep_first_arrivals"), (nearline, "lock_devices"), (nearline, "lock_states"),
    (nearline, "rescore"), (queue, "keep_accepted"), (queue, "keep_rejected"), (queue, "acknowledge"),
)  # fmt: skip
"""Steps of a batch, after each of which a worker can be made to die."""


@dataclass(kw_only=True)
class Torture:
    """One run: what was put, and what was done to the workers."""

    settings: Settings
    chance: random.Random
    workers: dict[int, int] = field(default_factory=dict)  # process id → number
    sent: dict[str, tuple[str, bool]] = field(default_factory=dict)  # event id → (raw user id, is good)
    kills: int = 0

    def put_some(self) -> None:
        """A handful of events: out of order, some twice, some that break a rule."""
        events = []
        for _ in range(self.chance.randint(1, 30)):
            number = len(self.sent)
            shopper, is_good = f"shopper-{self.chance.randrange(SHOPPERS)}", self.chance.random() > 0.03
            event_id = f"e{number}"
            moment = NOW - timedelta(minutes=self.chance.randrange(24 * 60))
            events.append(
                {
                    "event_id": event_id,
                    "event_type": self.chance.choice(KINDS) if is_good else "hover",
                    "occurred_at": moment.isoformat(),
                    "user_id": shopper,
                    "item_id": f"i{self.chance.randrange(13):02}",
                }
            )
            self.sent[event_id] = (shopper, is_good)
        repeats = [each for each in events if self.chance.random() < 0.1]
        statement = sa.text("SELECT inbox.put(CAST(:events AS jsonb))")
        self._until_it_works(statement, json.dumps(events + repeats))

    def _until_it_works(self, statement: sa.TextClause, events: str) -> None:
        while True:  # what a backend does: put again, under the same ids
            try:
                with db.connect(self.settings) as connection:
                    connection.execute(statement, {"events": events})
                return
            except DatabaseUnavailable:
                time.sleep(0.1)

    def start_worker(self, number: int) -> None:
        """A forked scorer, which dies by itself after a random step of a random batch, or is killed from outside."""
        module, name = self.chance.choice(POINTS)
        batches = self.chance.randint(1, 12)
        pid = os.fork()
        if pid == 0:
            try:
                _engine.cache_clear()  # connections are the parent's
                _die_after(module, name, batches)
                Scorer(settings=self.settings, clock=lambda: NOW).run()
            except Exception:
                traceback.print_exc()  # above all: Postgres was stopped while it started
            finally:
                os._exit(0)  # never back through the parent's frames, which would stop the server and clear its folder
        self.workers[pid] = number

    def kill_one(self) -> None:
        os.kill(self.chance.choice(list(self.workers)), signal.SIGKILL)
        self.bury()

    def bury(self) -> None:
        """Replace workers that died."""
        time.sleep(0.01)
        for pid, number in list(self.workers.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self.workers[pid]
                self.kills += 1
                self.start_worker(number)

    def end(self) -> None:
        for pid in self.workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.kills += len(self.workers)
        self.workers.clear()
        Scorer(settings=self.settings, clock=lambda: NOW).run(drain=True)

    def verdict(self) -> dict[str, int]:
        """Events lost, events doubled, profiles torn: all must be 0."""
        with db.connect(self.settings) as connection:
            accepted = Counter(connection.execute(sa.text("SELECT event_id FROM inbox.accepted")).scalars())
            rejected = connection.execute(sa.text("SELECT count(*) FROM inbox.rejected")).scalar_one()
            counts = connection.execute(sa.text("SELECT user_id, events_30d FROM profiles.user_profile"))
            counted = dict(map(tuple, counts))
            torn = connection.execute(sa.text(TORN)).scalar_one()
        good = {event_id: shopper for event_id, (shopper, is_good) in self.sent.items() if is_good}
        names = Pseudonymiser.of(self.settings)
        expected = Counter(names.of_user(shopper) for shopper in good.values())
        differences = [counted.get(user, 0) - count for user, count in expected.items()]
        missing, surplus = -sum(min(each, 0) for each in differences), sum(max(each, 0) for each in differences)
        bad = len(self.sent) - len(good)
        return {
            "events": len(self.sent),
            "kills": self.kills,
            "lost": len(good.keys() - accepted.keys()) + missing + max(bad - rejected, 0),
            "doubled": accepted.total() - len(accepted) + surplus,
            "torn": torn,
        }


TORN = """
SELECT count(*)
FROM profiles.user_profile AS profile
LEFT JOIN LATERAL (
    SELECT jsonb_agg(item_id ORDER BY rank) AS items FROM profiles.user_recommendation AS recommended
    WHERE recommended.shop = profile.shop AND recommended.user_id = profile.user_id
) AS shown ON TRUE
LEFT JOIN LATERAL (
    SELECT jsonb_agg(category ORDER BY rank) AS categories FROM profiles.user_interest AS interest
    WHERE interest.shop = profile.shop AND interest.user_id = profile.user_id AND interest.rank <= 5
) AS held ON TRUE
WHERE jsonb_path_query_array(profile.recommended_items, '$[*].item_id') <> coalesce(shown.items, '[]')
    OR jsonb_path_query_array(profile.top_categories, '$[*].category') <> coalesce(held.categories, '[]')
"""


def _die_after(module: object, name: str, batches: int) -> None:
    step: Callable = getattr(module, name)
    left = iter(range(batches, -1, -1))

    def step_and_die(*given, **named):
        result = step(*given, **named)
        if next(left, 0) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, step_and_die)


def torture(
    settings: Settings, *, kills: int, seed: int, workers: int = 2, stop_postgres: Callable[[], None] | None = None,
    stops: int = 0, seconds: float = 3600,
) -> dict[str, int]:  # fmt: skip
    """Until so many kills and stops have happened, or the time is over; then drain and judge."""
    torch.set_num_threads(1)
    run = Torture(settings=settings, chance=random.Random(seed))
    stopped, until = 0, time.monotonic() + seconds
    for number in range(workers):
        run.start_worker(number)
    while (run.kills < kills or stopped < stops) and time.monotonic() < until:
        run.put_some()
        time.sleep(run.chance.random() * 0.05)
        if run.chance.random() < 0.2:
            run.kill_one()
        if stop_postgres is not None and stopped < stops and run.kills >= (stopped + 1) * kills / (stops + 1):
            stop_postgres()
            stopped += 1
        run.bury()
    run.end()
    return {**run.verdict(), "postgres_stops": stopped}


def main() -> None:
    from model_shop import publish

    from intent_platform.bench.result import write_result
    from intent_platform.index.registry import ensure_release
    from intent_platform.keys import create_missing_keys

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the embedded Postgres may run as another account
        settings = Settings(home=folder / "home", postgres_home=str(folder / "postgres"), threads=1)
        create_missing_keys(settings)
        server = embedded._Server.at(Path(settings.postgres_home))
        with db.serve(settings) as served:
            db.migrate(served)
            publish(served)
            ensure_release(served, NOW.date())

            def stop_postgres() -> None:
                server._run("pg_ctl", "-D", str(server.data), "-m", "immediate", "-w", "stop")
                server.ensure_running(())

            figures = torture(
                served,
                kills=given.kills,
                seed=given.seed,
                stop_postgres=stop_postgres,
                stops=given.stops,
                seconds=60 * given.minutes,
            )
    print(figures)
    write_result("torture", figures, {}, [], " ".join(["python tests/torture.py", *sys.argv[1:]]))
    sys.exit(bool(figures["lost"] or figures["doubled"] or figures["torn"]))


if __name__ == "__main__":
    main()
