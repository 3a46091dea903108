"""Releases in registry and lake: bootstrap, promotion, rollback, refusal."""

import shutil
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from model_shop import NOON, catalogue, history, publish

from intent_platform import approval, db, training
from intent_platform.errors import IndexInvalid, NotEnoughData, ReleaseInvalid, ReleaseMoved
from intent_platform.index import item_index, registry, release
from intent_platform.lake import Lake
from intent_platform.model import behaviour, parts
from intent_platform.model.policy import DEFAULT
from intent_platform.scoring import score

DAY = NOON.date()


@pytest.fixture
def shop(settings):
    publish(settings, days={DAY: history((2, "view", 6), (1, "purchase", 6), (3, "view", 0))})
    return settings


def forget_loaded_parts() -> None:
    for cached in (parts._checked, item_index._load, behaviour._load):
        cached.cache_clear()


def scores_of(settings, rows) -> list:
    release, _ = training.current_release(settings)
    found = score(release, rows, valid_at=NOON, settings=settings)
    return [each.to_pylist() for each in (found.profiles, found.interests, found.recommendations)]


def rows_of(settings, statement: str) -> list:
    with db.connect(settings) as connection:
        return list(connection.execute(sa.text(statement)))


def test_there_is_always_a_champion(shop):
    made = training.ensure_release(shop, DAY)
    assert made.release_id.startswith("bootstrap-")
    assert made.model.card.intent_missing_reason == "no_model_trained_yet"
    assert made.index.title[made.index.popularity.argmax()] == "bluetooth speaker"
    assert rows_of(shop, "SELECT promotion_number, release_id FROM registry.promotion") == [(1, made.release_id)]


def test_asking_again_makes_nothing_new(shop):
    first = training.ensure_release(shop, DAY)
    assert training.ensure_release(shop, DAY).release_id == first.release_id
    assert rows_of(shop, "SELECT count(*) FROM registry.promotion") == [(1,)]


def test_promotion_of_what_serves_keeps_its_number_and_a_rollback_takes_a_new_one(shop):
    first = training.ensure_release(shop, DAY)
    second = training.rebuild_index(replace(shop), now=NOON)
    assert second.release_id == first.release_id  # same items, same popularity
    grown = catalogue().to_pylist()
    grown[0]["title"] = "scarlet running shoes"
    publish(shop, items=type(catalogue()).from_pylist(grown, schema=catalogue().schema))
    third = training.rebuild_index(shop, now=NOON)
    assert third.release_id != first.release_id
    back = training.promote(shop, first.release_id, reason="test", decided_by="a person", clock=NOON)
    assert back.promotion_number == 3
    assert training.current_promotion(shop).release_id == first.release_id


def test_going_back_takes_no_second_and_gives_equal_scores(shop):
    rows = history((2, "view", 6), (1, "add_to_cart", 6))
    training.ensure_release(shop, DAY)
    served = [scores_of(shop, rows)]
    for count in (12, 11):
        publish(shop, items=catalogue().slice(0, count))
        training.rebuild_index(shop, now=NOON)
        served.append(scores_of(shop, rows))
    publish(shop, items=catalogue())  # what is for sale is asked of today's catalogue
    forget_loaded_parts()
    began = time.perf_counter()
    back = training.rollback(shop, reason="It recommends what is gone.", decided_by="test", clock=NOON)
    assert time.perf_counter() - began < 1
    assert (back.promotion_number, scores_of(shop, rows)) == (4, served[1])
    again = training.rollback(shop, reason="That one too.", decided_by="test", clock=NOON)
    assert (again.promotion_number, scores_of(shop, rows)) == (5, served[0])
    with pytest.raises(ReleaseInvalid, match="No release served shop 'main' before"):
        training.rollback(shop, reason="", decided_by="test", clock=NOON)
    written = "SELECT reason, decided_by FROM registry.promotion WHERE promotion_number > 3 ORDER BY promotion_number"
    assert rows_of(shop, written) == [("It recommends what is gone.", "test"), ("That one too.", "test")]


def test_going_back_to_a_release_whose_parts_are_gone_changes_nothing(shop):
    first = training.ensure_release(shop, DAY)
    publish(shop, items=catalogue().slice(0, 12))
    training.rebuild_index(shop, now=NOON)
    shutil.rmtree(Lake(shop.lake_root, shop.shop).path(f"index/{first.manifest.index}"))
    with pytest.raises(ReleaseInvalid, match="is missing"):
        training.rollback(shop, reason="", decided_by="test", clock=NOON)
    assert training.current_promotion(shop).promotion_number == 2


def test_a_person_approves_or_refuses_and_is_named(shop):
    first = training.ensure_release(shop, DAY)
    publish(shop, items=catalogue().slice(0, 12))
    second = training.rebuild_index(shop, now=NOON)
    shown = approval.question(shop, first.release_id)
    assert "- Bootstrap: no_model_trained_yet." in shown
    assert approval.answer(shop, first.release_id, is_approved=True, decided_by="operator", clock=NOON) is not None
    assert training.current_promotion(shop).release_id == first.release_id
    later = NOON + timedelta(days=300)
    assert approval.answer(shop, second.release_id, is_approved=False, decided_by="operator", clock=later) is None
    assert training.current_promotion(shop).release_id == first.release_id
    assert rows_of(
        shop, "SELECT verdict, reasons, decided_by FROM registry.decision ORDER BY decided_at DESC LIMIT 1"
    ) == [("refused", ["Refused by operator."], "operator")]


def test_a_release_of_an_unapproved_model_cannot_be_registered(shop):
    made = training.ensure_release(shop, DAY)
    with db.connect(shop) as connection:
        registry.add_decision(
            connection, shop, made.model.digest, "refused", ["Test."], "test", datetime(2030, 1, 1, tzinfo=UTC)
        )
    with pytest.raises(ReleaseInvalid, match="is not approved"):
        training.rebuild_index(shop, now=NOON)


@pytest.mark.parametrize(
    ("floor", "strict", "refusal"),
    [
        ("recall_at_20 = 0.95", "recall_at_20 = 1.01", "finds 100.0%"),
        ("max_score_error = 0.001", "max_score_error = 0.0", "off by up to"),
    ],
)
def test_an_index_below_the_floor_is_refused_and_the_old_one_stays(shop, tmp_path, floor, strict, refusal):
    made = training.ensure_release(shop, DAY)
    publish(shop, items=catalogue().slice(0, 9))
    (tmp_path / "policy.toml").write_text(DEFAULT.read_text().replace(floor, strict))
    with pytest.raises(IndexInvalid, match=f"{refusal}.*the index before it stays"):
        training.rebuild_index(replace(shop, policy=str(tmp_path / "policy.toml")), now=NOON)
    assert training.current_promotion(shop).release_id == made.release_id
    assert rows_of(shop, "SELECT is_published FROM registry.item_index ORDER BY items LIMIT 1") == [(False,)]


def test_a_new_index_never_brings_an_older_model_back(shop, monkeypatch):
    made = training.ensure_release(shop, DAY)
    publish(shop, items=catalogue().slice(0, 9))
    build = registry.build_index

    def promoted_meanwhile(*given):
        with db.connect(shop) as connection:
            connection.execute(
                sa.text("INSERT INTO registry.promotion VALUES ('main', 2, :release_id, 'Test.', 'another', :at)"),
                {"release_id": made.release_id, "at": NOON},
            )
        return build(*given)

    monkeypatch.setattr(registry, "build_index", promoted_meanwhile)
    with pytest.raises(ReleaseMoved, match="was promoted while"):
        training.rebuild_index(shop, now=NOON)
    assert training.current_promotion(shop).promotion_number == 2


def test_an_index_that_cannot_be_read_is_left_behind_by_the_next_one(shop):
    made = training.ensure_release(shop, DAY)
    shutil.rmtree(Lake(shop.lake_root, shop.shop).path(f"index/{made.index.digest}"))
    forget_loaded_parts()
    with pytest.raises(ReleaseInvalid):
        registry.current_release(shop)
    publish(shop, items=catalogue().slice(0, 9))
    assert training.rebuild_index(shop, now=NOON).items == 9
    assert len(registry.current_release(shop)[0].index) == 9


def test_changed_bytes_are_noticed_before_anything_is_scored(shop):
    made = training.ensure_release(shop, DAY)
    forget_loaded_parts()
    weights = Path(Lake(shop.lake_root, shop.shop).path(f"model/{made.model.digest}/lexical.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ReleaseInvalid, match=r"lexical.safetensors was changed"):
        training.current_release(shop)


def test_an_unknown_release_is_named(shop):
    training.ensure_release(shop, DAY)
    with pytest.raises(ReleaseInvalid, match="no-such-release"):
        training.promote(shop, "no-such-release", reason="", decided_by="", clock=NOON)


def test_a_manifest_that_names_other_parts_is_refused(shop):
    made = training.ensure_release(shop, DAY)
    path = Path(Lake(shop.lake_root, shop.shop).path(f"release/{made.release_id}.json"))
    path.write_text(path.read_text().replace(made.manifest.model[:4], "0000", 2))
    with pytest.raises(ReleaseInvalid):
        release.load_release(shop, made.release_id)


def test_a_shop_without_items_says_so(settings):
    with pytest.raises(NotEnoughData):
        training.ensure_release(settings, date(2026, 8, 21))


def test_current_release_knows_what_is_sold_out_today(shop):
    training.ensure_release(shop, DAY)
    rows = catalogue().to_pylist()
    rows[6]["is_available"] = False
    publish(shop, items=type(catalogue()).from_pylist(rows, schema=catalogue().schema))
    found, _ = training.current_release(shop)
    assert not found.is_available[6]
    assert found.is_available.sum() == len(rows) - 1
