"""`intent search`, as it is typed."""

from datetime import timedelta

import pytest
from model_shop import NOON, history, publish
from typer.testing import CliRunner

from intent_platform import cli, db, training
from intent_platform.index.registry import current_release
from intent_platform.keys import create_missing_keys
from intent_platform.profiles import ProfileRows, Stamp, upsert
from intent_platform.scoring import score


@pytest.fixture
def shop(settings, monkeypatch):
    create_missing_keys(settings)
    for name in ("home", "database_url"):
        monkeypatch.setenv(f"INTENT_{name.upper()}", str(getattr(settings, name)))
    monkeypatch.setenv("INTENT_ENCODER", "none")
    settings = type(settings).from_env()
    rows = history((2, "view", 9), (1, "view", 10), (3, "view", 0))
    publish(settings, days={NOON.date(): rows})
    training.ensure_release(settings, NOON.date())
    release, promotion = current_release(settings)
    scores = score(release, rows, valid_at=NOON + timedelta(hours=1), settings=settings)
    stamp = Stamp(
        shop=settings.shop, release_id=promotion.release_id, promotion_number=1, source="batch", scored_at=NOON,
        horizon_hours=24,
    )  # fmt: skip
    with db.connect(settings) as connection:
        upsert(connection, ProfileRows.of(scores.profiles, scores.interests, scores.recommendations, stamp))
    return settings


def typed(*words: str) -> str:
    done = CliRunner().invoke(cli.app, ["search", *words])
    return done.stdout if done.exit_code == 0 else f"{done.exit_code}: {done.exception or done.output}"


def first_title(output: str) -> str:
    return output.splitlines()[3]


@pytest.mark.usefixtures("shop")
def test_search_prints_what_fits_what_does_not_and_why():
    shown = typed("running shoes under 10.50", "--k", "3")
    assert "red running shoes" in first_title(shown)
    assert "2 of them lie outside the price range, have no price, or one in another currency." in shown
    assert "Nothing fits; these items are popular." in typed("😀")


@pytest.mark.usefixtures("shop")
def test_brackets_in_what_is_printed_are_no_mark_up_and_one_statement_is_one():
    shown = CliRunner().invoke(cli.app, ["sql", "SELECT '[red]x[/b]' AS title;"])
    assert "[red]x[/b]" in shown.stdout
    assert CliRunner().invoke(cli.app, ["sql", "COMMIT; CREATE TABLE public.escaped (a int)"]).exit_code == 1


@pytest.mark.usefixtures("shop")
def test_a_shoppers_interests_count_and_an_unknown_shopper_is_named():
    assert "headphones" in first_title(typed("black steel"))
    assert "frying pan" in first_title(typed("black steel", "--user", "u1_a"))
    assert "has no profile of 'nobody'" in typed("black steel", "--user", "nobody")
