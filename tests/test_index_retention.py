"""Old releases leave the disk, never one that somebody may go back to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from model_shop import NOON, catalogue, history, publish

from intent_platform import db, training
from intent_platform.errors import ReleaseInvalid
from intent_platform.index import retention
from intent_platform.index.release import load_release
from intent_platform.lake import Lake

DAY = NOON.date()
START = datetime(2026, 8, 22, tzinfo=UTC)


@pytest.fixture
def shop(settings):
    """Six releases of one model, one index each, the last of them serving; four are kept."""
    settings = replace(settings, keep_releases=4)
    publish(settings, days={DAY: history((1, "view", 0))})
    training.ensure_release(settings, DAY, now=START)
    for number in range(1, 6):
        publish(settings, items=catalogue().slice(0, 13 - number))
        training.rebuild_index(settings, now=START + timedelta(days=number))
    return settings


def promoted(settings) -> list[str]:
    with db.connect(settings) as connection:
        statement = sa.text("SELECT release_id FROM registry.promotion ORDER BY promotion_number")
        return list(connection.execute(statement).scalars())


def on_disk(settings, kind: str) -> set[str]:
    folder = Path(Lake(settings.lake_root, settings.shop).path(kind))
    return {each.name.removesuffix(".json") for each in folder.iterdir() if not each.name.startswith(".")}


def test_only_the_newest_that_served_stay_on_disk(shop):
    served = promoted(shop)
    assert on_disk(shop, "release") == set(served[-4:])
    assert len(on_disk(shop, "index")) == 4
    assert len(on_disk(shop, "model")) == 1  # all of them name it
    for each in served[-4:]:
        load_release(shop, each)


def test_a_removed_release_is_still_known_and_says_why_it_cannot_serve(shop):
    first = promoted(shop)[0]
    with pytest.raises(ReleaseInvalid, match=r"removed on 2026-08-26.*INTENT_KEEP_RELEASES"):
        training.promote(shop, first, reason="", decided_by="test", clock=NOON)
    assert training.current_promotion(shop).release_id == promoted(shop)[-1]


def test_what_one_goes_back_to_is_the_newest_again(shop):
    served = promoted(shop)
    training.promote(shop, served[2], reason="", decided_by="test", clock=START + timedelta(days=7))
    publish(shop, items=catalogue().slice(0, 3))
    training.rebuild_index(shop, now=START + timedelta(days=8))
    assert on_disk(shop, "release") == {served[2], *promoted(shop)[-1:], *served[-2:]}


def test_a_removal_that_was_cut_short_is_finished_by_the_next(shop, monkeypatch):
    publish(shop, items=catalogue().slice(0, 4))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(retention.parts, "remove_part", killed)
    with pytest.raises(KeyboardInterrupt):
        training.rebuild_index(shop, now=START + timedelta(days=9))
    monkeypatch.undo()
    assert len(on_disk(shop, "index")) == 5
    assert retention.remove_old_releases(shop, now=START + timedelta(days=10)) == 1
    assert len(on_disk(shop, "index")) == 4
    assert retention.remove_old_releases(shop, now=START + timedelta(days=10)) == 0


def test_the_same_items_as_long_ago_make_their_release_again(shop):
    served = promoted(shop)
    publish(shop, items=catalogue())
    training.rebuild_index(shop, now=START + timedelta(days=11))
    assert promoted(shop)[-1] == served[0]
    load_release(shop, served[0])
    training.promote(shop, served[-1], reason="", decided_by="test", clock=START + timedelta(days=12))
    training.promote(shop, served[0], reason="", decided_by="test", clock=START + timedelta(days=13))


def test_a_model_that_awaits_its_first_release_stays(shop):
    folder = Path(Lake(shop.lake_root, shop.shop).path("model"))
    with db.connect(shop) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO registry.model SELECT shop, 'new', kind, purchase_scorer, item_scorer, trained_from, "
                "trained_until, training_seed, training_settings, data_digests, report, :at FROM registry.model"
            ),
            {"at": START + timedelta(days=6)},
        )
    (folder / "new").mkdir()
    retention.remove_old_releases(shop, now=START + timedelta(days=7))
    assert (folder / "new").is_dir()
