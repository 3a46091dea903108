"""What commands say to whoever types them."""

import csv

import pytest
from model_shop import catalogue, publish
from nearline_shop import EVENING, a_shop, rows_of
from typer.testing import CliRunner

from intent_platform import __version__, cli, training
from intent_platform.errors import IntentError


@pytest.fixture
def command(settings, monkeypatch):
    """A function that runs `intent …`."""
    for name in ("home", "database_url"):
        monkeypatch.setenv(f"INTENT_{name.upper()}", str(getattr(settings, name)))
    return lambda *words, text=None: CliRunner().invoke(cli.app, words, input=text)


def test_the_version_is_told():
    assert CliRunner().invoke(cli.app, ["--version"]).stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ('{"a": 1,\n "b": bad}', r'Token "bad" is invalid\. JSON data, line 2: .*bad'),
        ('{"a": 1}\n{"b": 2}', r'Expected end of input, but found "{"\. JSON data, line 2: '),
        ('{"event_id": "a", "shop": ["main"]}', "element 1 of 1 is no object, or has one as its shop"),
        (
            '[{"event_id": "a"}, 3]',
            r"element 2 of 2 is no object, or has one as its shop; nothing was taken\. Give one JSON object per event",
        ),
    ],
)
def test_events_that_are_none_are_told_with_what_is_wrong_where_and_what_to_give(settings, command, events, said):
    with pytest.raises(IntentError, match=said):
        raise command("put", "-", text=events).exception
    assert rows_of(settings, "SELECT 1 FROM inbox.event") == []


def test_csv_holds_json_as_json(command):
    shown = command(
        "sql", "--csv", """SELECT '[{"category": "shoes", "weight": 1}]'::jsonb AS top, ARRAY['é'] AS list"""
    )
    assert list(csv.DictReader(shown.stdout.splitlines())) == [
        {"top": '[{"weight": 1, "category": "shoes"}]', "list": '["é"]'}
    ]


def test_events_for_a_shop_that_nobody_knows_are_put_with_a_warning(settings, command, tmp_path):
    done = command("put", '[{"event_id": "a", "shop": null}, {"event_id": "b", "shop": "mian"}]')
    assert done.stdout.startswith("2 events wait")
    assert "Nobody knows shop 'main'" in done.stderr
    assert done.stderr.count("Nobody knows") == 2
    assert "Nobody knows shop 'mian'" in done.stderr
    assert "`intent nearline` runs" in done.stderr
    a_shop(settings, tmp_path)
    assert "'main'" not in command("put", '{"event_id": "c"}').stderr


def test_a_rollback_says_what_it_replaced_and_when_profiles_follow(settings, command, tmp_path):
    shop = a_shop(settings, tmp_path)
    publish(shop, items=catalogue().slice(0, 9))
    newer = training.rebuild_index(shop, now=EVENING).release_id
    told = command("rollback", "--reason", "Test.").stdout
    assert f"serves again, as promotion 3, in place of {newer} (promotion 2)." in told
    assert "with `intent refresh DAY`" in told
