"""make torture-release: no profile is ever made of two releases, while they are swapped and rolled back under load.

Two toy releases agree in nothing: their probabilities lie on different sides of a half, their catalogues share only
items that cannot be bought, and call the categories of these differently. Every shopper gets one event a round; while
forked scorers work it off, releases are swapped and rolled back at random moments. After each round every profile that
was scored, and its interests and recommendations, must all be of the release that its row names. Also measured: from
the commit of a promotion until each scorer has picked it up. Writes var/bench/torture-release.json.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
import torch
from model_shop import NOON, catalogue, publish, shop_of_its_own

from intent_platform import db, serving
from intent_platform.db.connection import _engine
from intent_platform.index.registry import add_decision, add_model, bootstrap_model, promote, publish_index, rollback
from intent_platform.lake import Lake
from intent_platform.model import parts
from intent_platform.model.behaviour import load_model, save_model
from intent_platform.model.calibration import IDENTITY
from intent_platform.model.features import FEATURES
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.logistic import LogisticRegression
from intent_platform.nearline import Scorer
from intent_platform.settings import Settings

LONGEST_PAUSE_S = 0.8  # between two promotions
BIAS = {"a": -2.0, "b": 2.0}  # log-odds of every shopper's purchase

CHECK = """
SELECT
    count(*) AS scored,
    count(*) FILTER (WHERE own.letter = 'b') AS by_b,
    count(*) FILTER (WHERE NOT coalesce(
        promotion.release_id = profile.release_id
        AND (profile.purchase_intent > 0.5) = (own.letter = 'b')
        AND jsonb_array_length(profile.recommended_items) > 0
        AND NOT jsonb_path_exists(
            profile.recommended_items, '$[*] ? (!(@.item_id starts with $letter))', to_jsonb(own)
        )
        AND jsonb_array_length(profile.top_categories) > 0
        AND NOT jsonb_path_exists(
            profile.top_categories, '$[*] ? (!(@.category starts with $letter))', to_jsonb(own)
        )
        AND recommended.first_letter = own.letter AND recommended.last_letter = own.letter
        AND interest.first_letter = own.letter AND interest.last_letter = own.letter,
        FALSE
    )) AS mixed
FROM profiles.user_profile AS profile
CROSS JOIN LATERAL (SELECT CASE WHEN profile.release_id = :release_b THEN 'b' ELSE 'a' END AS letter) AS own
LEFT JOIN registry.promotion AS promotion
    ON profile.shop = promotion.shop AND profile.promotion_number = promotion.promotion_number
LEFT JOIN (
    SELECT user_id, left(min(item_id), 1) AS first_letter, left(max(item_id), 1) AS last_letter
    FROM profiles.user_recommendation GROUP BY user_id
) AS recommended ON profile.user_id = recommended.user_id
LEFT JOIN (
    SELECT user_id, left(min(category), 1) AS first_letter, left(max(category), 1) AS last_letter
    FROM profiles.user_interest GROUP BY user_id
) AS interest ON profile.user_id = interest.user_id
WHERE profile.last_event_at = :round_at
"""


DAMAGE = (
    "UPDATE profiles.user_profile SET purchase_intent = 1 - purchase_intent",
    "UPDATE profiles.user_profile SET promotion_number = promotion_number - 1",
    "UPDATE profiles.user_profile SET recommended_items = translate(recommended_items::text, 'ab', 'ba')::jsonb",
    "UPDATE profiles.user_profile SET top_categories = '[]'",
    "UPDATE profiles.user_recommendation SET item_id = translate(item_id, 'ab', 'ba') WHERE rank = 2",
    "UPDATE profiles.user_interest SET category = translate(category, 'ab', 'ba') WHERE rank = 1",
    "DELETE FROM profiles.user_interest",
)


def items_of(letter: str) -> pa.Table:
    """The shop's items, which cannot be bought, under the letter's categories; and those that only it recommends."""
    common = catalogue()
    categories = pa.array([f"{letter}.{name}" for name in common["category"].to_pylist()])
    common = common.set_column(common.column_names.index("category"), "category", categories)
    ids = pa.array([f"{letter}{number:02}" for number in range(common.num_rows)])
    own = common.set_column(common.column_names.index("item_id"), "item_id", ids)
    sold_out = pa.array([False] * common.num_rows)
    return pa.concat_tables(
        [common.set_column(common.column_names.index("is_available"), "is_available", sold_out), own]
    )


def make_release(settings: Settings, letter: str) -> str:
    """Register a release of the letter; returns its id."""
    publish(settings, items=items_of(letter))
    lake = Lake(settings.lake_root, settings.shop)
    card = bootstrap_model(lake, lake.snapshot(), settings, "toy").card
    card = replace(card, purchase_scorer="logistic_regression", intent_missing_reason=None)
    width = len(FEATURES)
    logistic = LogisticRegression(mean=[0.0] * width, scale=[1.0] * width, weight=[0.0] * width, bias=BIAS[letter])
    with tempfile.TemporaryDirectory() as temporary:
        texts = fit_lexical(items_of(letter)["title"].to_pylist())
        save_model(Path(temporary), card, texts, logistic=logistic, calibration=IDENTITY)
        digest = parts.publish_part(lake.path(""), "model", Path(temporary))
    model = load_model(lake.path(""), digest, settings)
    with db.connect(settings) as connection:
        add_model(connection, settings, model, trained_from=None, trained_until=NOON.date(), report=None, now=NOON)
        add_decision(connection, settings, model.digest, "approved", ["Toy."], "test", NOON)
    return publish_index(settings, model, NOON.date(), now=NOON).release_id


@dataclass(kw_only=True)
class Torture:
    settings: Settings
    chance: random.Random
    users: int
    folder: Path  # where scorers write down which promotion they have, and since when
    releases: dict[str, str] = field(default_factory=dict)  # letter → id
    serves: str = "a"
    promoted_at: dict[int, float] = field(default_factory=dict)  # promotion number → monotonic s
    workers: list[int] = field(default_factory=list)  # process ids
    rollbacks: int = 0
    newest_round_at: datetime = NOON
    scored: int = 0
    by_b: int = 0
    mixed: int = 0

    def prepare(self) -> None:
        self.releases = {letter: make_release(self.settings, letter) for letter in "ab"}
        publish(self.settings, items=pa.concat_tables([items_of("a"), items_of("b").slice(catalogue().num_rows)]))
        self.promote("a")

    def promote(self, letter: str) -> None:
        facts = {"reason": "Torture.", "decided_by": "torture", "clock": NOON}
        if letter == "a" and self.serves == "b" and self.chance.random() < 0.5:
            promotion = rollback(self.settings, **facts)
            self.rollbacks += 1
        else:
            promotion = promote(self.settings, self.releases[letter], **facts)
        self.promoted_at[promotion.promotion_number] = time.monotonic()
        assert promotion.release_id == self.releases[letter]
        self.serves = letter

    def start(self, workers: int) -> None:
        for _ in range(workers):
            pid = os.fork()
            if pid == 0:
                try:
                    self._score_until_told()
                except Exception:
                    traceback.print_exc()
                finally:
                    os._exit(0)  # never back through the parent's frames, which would stop the server
            self.workers.append(pid)

    def _score_until_told(self) -> None:
        _engine.cache_clear()  # connections are the parent's
        _write_down_pick_ups(self.folder / f"{os.getpid()}")
        scorer = Scorer(settings=self.settings, clock=lambda: NOON)
        signal.signal(signal.SIGTERM, lambda *_: scorer.stop.set())
        scorer.run()

    def round(self, number: int) -> None:
        """One event for each shopper, and swaps until all of them are told; then every profile is looked at."""
        round_at = NOON - timedelta(hours=10) + timedelta(minutes=number)
        self.newest_round_at = round_at
        self._put(number, round_at.isoformat())
        while self._waiting():
            time.sleep(self.chance.random() * LONGEST_PAUSE_S)
            self.promote("b" if self.serves == "a" else "a")
        with db.connect(self.settings) as connection:
            found = self._check(connection)
        self.scored += found.scored
        self.by_b += found.by_b
        self.mixed += found.mixed + self.users - found.scored

    def check_the_check(self) -> None:
        """A profile of two releases would have been seen, whichever of its parts were the other's."""
        for damage in DAMAGE:
            with db.connect(self.settings) as connection:
                connection.execute(sa.text(damage))
                assert self._check(connection).mixed, damage
                connection.rollback()

    def _put(self, number: int, moment: str) -> None:
        user = np.arange(self.users)
        events = {
            "event_id": pa.array([f"{number}-{each}" for each in user]),
            "event_type": pa.array(["add_to_cart"] * self.users),
            "occurred_at": pa.array([moment] * self.users),
            "user_id": pa.array([f"shopper-{each}" for each in user]),
            "item_id": pa.array([f"i{(each + number) % catalogue().num_rows:02}" for each in user]),
        }
        with db.connect(self.settings) as connection:
            db.copy_rows(connection, "inbox.event", pa.table(events))

    def _check(self, connection: sa.Connection) -> sa.Row:
        connection.execute(sa.text("SET LOCAL enable_nestloop = off"))  # these tables grow faster than their statistics
        key = {"release_b": self.releases["b"], "round_at": self.newest_round_at}
        return connection.execute(sa.text(CHECK), key).one()

    def _waiting(self) -> bool:
        with db.connect(self.settings) as connection:
            return connection.execute(sa.text("SELECT EXISTS (SELECT 1 FROM inbox.event)")).scalar_one()

    def end(self) -> None:
        for pid in self.workers:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)

    def pick_ups(self) -> np.ndarray:
        """Seconds from a promotion until a scorer had it or a later one; float64, of every promotion and scorer."""
        found = []
        for pid in self.workers:
            numbers, moments = np.loadtxt(self.folder / f"{pid}", ndmin=2).T
            for number, promoted_at in self.promoted_at.items():
                later = moments[numbers >= number]
                if len(later) and moments[0] < promoted_at:
                    found.append(max(float(later[0]) - promoted_at, 0.0))
        return np.array(found)


def _write_down_pick_ups(path: Path) -> None:
    look = serving.Follower._follow_once

    def look_and_write(follower: serving.Follower, is_tidying: bool) -> None:
        look(follower, is_tidying)
        with path.open("a") as stream:
            stream.write(f"{follower.serving.promotion.promotion_number} {time.monotonic()}\n")

    serving.Follower._follow_once = look_and_write


def torture(
    settings: Settings, folder: Path, *, scores: int, users: int, workers: int, seed: int, seconds: float = 3600
) -> dict[str, float]:
    """Round after round until so many profiles were scored, or the time is over."""
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    run = Torture(settings=settings, chance=random.Random(seed), users=users, folder=folder)
    run.prepare()
    run.start(workers)
    began, number = time.monotonic(), 0
    try:
        while run.scored < scores and time.monotonic() < began + seconds:
            run.round(number)
            number += 1
    finally:
        run.end()
    run.check_the_check()
    waits = run.pick_ups()
    return {
        "scored": run.scored,
        "scored_by_second": run.by_b,
        "mixed": run.mixed,
        "promotions": len(run.promoted_at),
        "rollbacks": run.rollbacks,
        "pick_up_p50_s": round(float(np.quantile(waits, 0.5)), 3),
        "pick_up_p99_s": round(float(np.quantile(waits, 0.99)), 3),
        "pick_up_max_s": round(float(waits.max()), 3),
        "scored_per_s": round(run.scored / (time.monotonic() - began)),
    }


def main() -> None:
    from intent_platform.bench.result import write_result

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with shop_of_its_own(threads=1) as served:
        bounds = {"scores": given.scores, "users": given.users, "workers": given.workers, "seed": given.seed}
        figures = torture(served, served.home.parent, **bounds, seconds=60 * given.minutes)
    print(figures)
    write_result("torture-release", figures, {}, [], " ".join(["python tests/release_torture.py", *sys.argv[1:]]))
    sys.exit(bool(figures["mixed"] or figures["pick_up_max_s"] > 1))


if __name__ == "__main__":
    main()
