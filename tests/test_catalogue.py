"""The catalogue: newest row of each item, stubs for what only events show, the same file twice changes nothing."""

from datetime import date

import pytest

from intent_platform import daily, training
from intent_platform.errors import CatalogueInvalid
from intent_platform.keys import create_missing_keys
from intent_platform.lake import Lake

DAY = date(2026, 8, 21)
EVENTS = """event_type,occurred_at,user_id,item_id,category,price
view,2026-08-21T10:00:00Z,ann,known,,
view,2026-08-21T11:00:00Z,ann,unseen,shoes,5
view,2026-08-21T12:00:00Z,ann,unseen,shoes.running,6
"""


@pytest.fixture
def shop(settings, tmp_path):
    """Settings, and a function that loads a catalogue given as text; its mapping has no times."""
    mapping = tmp_path / "items.toml"
    mapping.write_text('kind = "catalogue"\n[columns]\nitem_id = "id"\ntitle = "name"\nprice = "price"\n')

    def load(text: str) -> daily.CatalogueReport:
        (tmp_path / "items.csv").write_text(text)
        return daily.load_catalogue(settings, source=str(mapping), path=str(tmp_path / "items.csv"))

    return settings, load


def items(settings) -> dict:
    return {row["item_id"]: row for row in Lake(settings.lake_root, settings.shop).snapshot().read("items").to_pylist()}


def test_the_same_file_twice_is_not_news_and_a_changed_row_is(shop):
    settings, load = shop
    assert load("id,name,price\na,Shoe,5\nb,Hat,6\n").is_new
    first = items(settings)
    assert not load("id,name,price\na,Shoe,5\nb,Hat,6\n").is_new
    assert items(settings) == first
    assert load("id,name,price\na,Shoe,7\n").is_new
    after = items(settings)
    assert (after["a"]["price"], after["b"]) == (7, first["b"])
    assert after["a"]["updated_at"] > first["a"]["updated_at"]


def test_an_item_seen_only_in_events_is_a_stub_until_the_catalogue_names_it(shop, tmp_path):
    settings, load = shop
    create_missing_keys(settings)
    load("id,name,price\nknown,Shoe,5\n")
    mapping, file = tmp_path / "events.toml", tmp_path / "events.csv"
    fields = ("event_type", "occurred_at", "user_id", "item_id", "category", "price")
    columns = "\n".join(f'{name} = "{name}"' for name in fields)
    mapping.write_text(f'kind = "events"\n[columns]\n{columns}\n[event_types]\nview = "view"\n')
    file.write_text(EVENTS)
    daily.validate_events(DAY, settings, source=str(mapping), path=str(file))
    daily.build_sequences(DAY, settings)
    unseen = items(settings)["unseen"]
    assert (unseen["is_stub"], unseen["category"], unseen["price"], unseen["title"]) == (True, "shoes.running", 6, None)
    assert items(settings)["known"]["title"] == "Shoe"
    load("id,name,price\nunseen,Boot,9\n")
    daily.build_sequences(DAY, settings)
    assert (items(settings)["unseen"]["title"], items(settings)["unseen"]["is_stub"]) == ("Boot", False)


def test_a_training_before_the_first_refresh_finds_the_items_of_the_day(settings, tmp_path):
    """In Airflow both follow the published day at once, and either may come first."""
    create_missing_keys(settings)
    file = tmp_path / "events.csv"
    header = "event_id,event_type,occurred_at,user_id,anonymous_id,session_id,item_id,query_text,category,brand,price"
    header += ",currency,quantity,rating,order_id,device,market"
    file.write_text(f"{header}\ne1,view,2026-08-21T10:00:00Z,ann,,,shoe,,shoes,,5,EUR,,,,,\n")
    daily.validate_events(DAY, settings, path=str(file))
    assert training.retrain(DAY, settings).release_id.startswith("bootstrap-")
    assert list(items(settings)) == ["shoe"]


def test_a_catalogue_without_titles_is_refused_and_the_one_before_stays(shop):
    settings, load = shop
    load("id,name,price\na,Shoe,5\n")
    before = items(settings)
    with pytest.raises(CatalogueInvalid, match="0 of 2 items have a title"):
        load("id,name,price\na,,5\nb,,6\n")
    assert items(settings) == before
