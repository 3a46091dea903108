"""Whatever happens in whatever order, an event is counted once: a state machine over the inbox.

STEPS=10000 in the environment for a long run: STEPS=10000 python -m pytest -s tests/test_nearline_machine.py
"""

import json
import os
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase
from hypothesis import settings as bounds
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from model_shop import catalogue, publish
from received import an_event, write_file

from intent_platform import daily, db, nearline, training
from intent_platform.errors import DayRefused, ReleaseMoved
from intent_platform.events.pseudonyms import Pseudonymiser
from intent_platform.inbox.seeding import seed_if_new
from intent_platform.index.registry import current_promotion, current_release, promote, rollback
from intent_platform.keys import create_missing_keys
from intent_platform.lake import Lake
from intent_platform.nearline import Scorer
from intent_platform.replaying import replay_inbox

TODAY = date(2026, 8, 21)
YESTERDAY = TODAY - timedelta(days=1)
EVENING = datetime(2026, 8, 21, 23, 30, tzinfo=UTC)
FROM_FILE = 3  # events of user-0 that came by file yesterday
STEPS_PER_RUN = 25
STEPS = int(os.environ.get("STEPS", 150))
SECONDS_PER_STEP = 1  # at most, on average
STAMPS = """
SELECT profile.user_id, profile.valid_at, profile.promotion_number, profile.release_id, promotion.release_id
FROM profiles.user_profile AS profile
LEFT JOIN registry.promotion AS promotion
    ON profile.shop = promotion.shop AND profile.promotion_number = promotion.promotion_number
"""
FORGET = """
TRUNCATE inbox.event, inbox.accepted, inbox.duplicate, inbox.rejected, inbox.seen_event, nearline.user_state,
    nearline.device, nearline.seeded_day, profiles.user_profile CASCADE
"""


def event(number: int) -> dict[str, str]:
    """The same content whenever it is put; every ninth breaks a rule."""
    moment = datetime.combine(TODAY, datetime.min.time(), UTC) + timedelta(minutes=37 * number % 1380)
    changes = {"event_id": f"e{number}", "user_id": f"user-{number % 4}", "item_id": f"i{number % 13:02}"}
    kind = "hover" if number % 9 == 8 else "view"
    return an_event(**changes, event_type=kind, occurred_at=moment.isoformat())


class Inbox(RuleBasedStateMachine):
    """Puts, batches, crashes, refreshes, whole days, swaps and rollbacks, beside a model that only counts."""

    shop = None
    manifest: bytes
    releases: tuple[str, str]  # the first that ever served, and another one
    steps = 0  # of all runs together

    def __init__(self) -> None:
        super().__init__()
        self.serves = 0  # which of the releases
        self.put_numbers: set[int] = set()
        self.told: dict[str, tuple[datetime, int]] = {}  # user_id → (valid_at, promotion number)
        manifest_of(self.shop).write_bytes(self.manifest)
        self.run(FORGET)
        daily.refresh_profiles(YESTERDAY, self.shop)
        seed_if_new(self.shop)
        self.scorer = Scorer(settings=self.shop, clock=lambda: EVENING)
        self.swap(which=0)
        self.pick_up()
        Inbox.steps -= 1  # the first look comes before any step

    def teardown(self) -> None:
        self.scorer.close()

    @rule(which=st.sampled_from([0, 1]))
    def swap(self, which):
        """The scorer does not know yet: it goes on with what it has until it looks."""
        promote(self.shop, self.releases[which], reason="Test.", decided_by="test", clock=EVENING)
        self.serves = which

    @precondition(lambda self: self.serves == 1)
    @rule()
    def roll_back(self):
        before = current_promotion(self.shop)
        promotion = rollback(self.shop, reason="Test.", decided_by="test", clock=EVENING)
        assert promotion.release_id == self.releases[0]
        assert promotion.promotion_number == before.promotion_number + 1
        self.serves = 0

    @rule()
    def pick_up(self):
        release, promotion = current_release(self.shop)
        self.serving = nearline.Serving(release=release, promotion=promotion)

    @rule(numbers=st.lists(st.integers(0, 39), min_size=1, max_size=8))
    def put(self, numbers):
        self.insert(numbers)

    def insert(self, numbers) -> None:
        with db.connect(self.shop) as connection:
            db.query(
                connection, "put_events", events=json.dumps([event(number) for number in numbers]), shop=self.shop.shop
            )
        self.put_numbers |= set(numbers)

    @precondition(lambda self: self.put_numbers)
    @rule(number=st.integers(0, 39))
    def put_again(self, number):
        self.insert([sorted(self.put_numbers)[number % len(self.put_numbers)]])

    @precondition(lambda self: self.put_numbers)
    @rule()
    def replay_all(self):
        """A backend that lost its place puts everything again; the day is validated again as well."""
        self.insert(sorted(self.put_numbers))
        self.batch(most=1_000)
        self.day()

    @rule(numbers=st.lists(st.integers(0, 39), min_size=1, max_size=8), most=st.integers(1, 8))
    def put_and_score(self, numbers, most):
        self.insert(numbers)
        self.batch(most)

    @rule(most=st.integers(1, 8))
    def score(self, most):
        self.batch(most)

    @rule(most=st.integers(1, 8))
    def crash(self, most):
        before = self.profiles()
        with pytest.raises(KeyboardInterrupt):
            self.batch(most, is_crashing=True)
        assert self.profiles() == before

    @rule()
    def replay_rejected(self):
        """Nothing was mended, so all of it stays rejected."""
        before = self.rows("SELECT seq, broken_rule FROM inbox.rejected ORDER BY seq")
        report = replay_inbox(TODAY, self.shop, EVENING)
        assert (report.accepted, report.duplicate) == (0, 0)
        assert self.rows("SELECT seq, broken_rule FROM inbox.rejected ORDER BY seq") == before

    @rule()
    def refresh(self):
        daily.refresh_profiles(YESTERDAY, self.shop)

    @rule()
    def day(self):
        """One that has nothing but rejected events is refused, whatever share may be."""
        if self.rows("SELECT 1 FROM inbox.accepted"):
            daily.run_day(TODAY, self.shop, max_rejected_ratio=1.0)
        elif self.rows("SELECT 1 FROM inbox.rejected"):
            with pytest.raises(DayRefused, match="the day has events"):
                daily.run_day(TODAY, self.shop, max_rejected_ratio=1.0)

    @invariant()
    def every_event_waits_or_was_counted_or_set_aside(self):
        waiting = {row[0] for row in self.rows("SELECT event_id FROM inbox.event")}
        accepted = [row[0] for row in self.rows("SELECT event_id FROM inbox.accepted")]
        assert len(accepted) == len(set(accepted))
        good = {f"e{number}" for number in self.put_numbers if number % 9 != 8}
        assert good <= waiting | set(accepted)

    @invariant()
    def a_profile_counts_what_was_accepted_of_its_shopper(self):
        names = Pseudonymiser.of(self.shop)
        accepted = Counter(row[0] for row in self.rows("SELECT user_id FROM inbox.accepted"))
        accepted[names.of_user("user-0")] += FROM_FILE
        assert dict(self.profiles()) == dict(accepted)

    @invariant()
    def a_profile_moves_forward_only_and_names_a_promotion_with_its_release(self):
        rows = self.rows(STAMPS)
        told = {user: (valid_at, number) for user, valid_at, number, *_ in rows}
        assert {user: before for user, before in self.told.items() if told[user] < before} == {}
        assert [row for row in rows if row[3] != row[4]] == []
        self.told = told

    @invariant()
    def another_step_was_taken(self) -> None:
        Inbox.steps += 1

    def batch(self, most: int, *, is_crashing: bool = False) -> None:
        """As the scorer does it: one that a newer release has overtaken tries again once it has looked."""
        try:
            self.take(most, is_crashing=is_crashing)
        except ReleaseMoved:
            assert self.serving.promotion.promotion_number < current_promotion(self.shop).promotion_number
            self.pick_up()
            self.take(most, is_crashing=is_crashing)

    def take(self, most: int, *, is_crashing: bool) -> None:
        with db.connect(self.shop) as connection:
            door = self.scorer._door_of(EVENING)
            nearline.take_batch(connection, self.serving, door, self.shop, most=most, now=EVENING)
            if is_crashing:
                raise KeyboardInterrupt

    def profiles(self) -> list:
        return self.rows("SELECT user_id, events_30d FROM profiles.user_profile ORDER BY user_id")

    def rows(self, statement: str) -> list:
        with db.connect(self.shop) as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement))]

    def run(self, statement: str) -> None:
        with db.connect(self.shop) as connection:
            connection.execute(sa.text(statement))


def two_releases(shop) -> tuple[str, str]:
    """What serves, and a release whose index lacks some of the items; the catalogue is whole again afterwards."""
    first = current_promotion(shop).release_id
    publish(shop, items=catalogue().slice(0, 9))
    training.rebuild_index(shop, now=EVENING)
    publish(shop)
    return first, current_promotion(shop).release_id


def manifest_of(shop) -> Path:
    return Path(Lake(shop.lake_root, shop.shop).path("manifest.json"))


@pytest.mark.timeout(max(STEPS * SECONDS_PER_STEP, 300))
def test_the_inbox_keeps_its_promises_in_any_order(settings_of_shop):
    Inbox.shop = settings_of_shop
    Inbox.releases = two_releases(settings_of_shop)
    Inbox.manifest = manifest_of(settings_of_shop).read_bytes()
    run_state_machine_as_test(
        Inbox,
        settings=bounds(
            max_examples=max(STEPS * 3 // (2 * STEPS_PER_RUN), 1),  # some runs are shorter
            stateful_step_count=STEPS_PER_RUN,
            deadline=None,
            phases=(Phase.generate,),  # a step takes a tenth of a second: a failure is shown as it was found
            derandomize="STEPS" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{Inbox.steps:,} steps.")
    assert Inbox.steps >= STEPS


@pytest.fixture
def settings_of_shop(settings, tmp_path):
    shop = replace(settings, threads=1, max_rejected_ratio=0.9)
    create_missing_keys(shop)
    publish(shop)
    own = {"user_id": "user-0"}
    events = [an_event(n, event_id=f"y{n}", occurred_at=f"{YESTERDAY}T0{n}:00:00Z", **own) for n in range(FROM_FILE)]
    daily.run_day(YESTERDAY, shop, path=str(write_file(tmp_path, "yesterday.csv", events)))
    return shop
