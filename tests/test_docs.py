"""The documents say what the machine does: pages made from code are equal to it, every query of the cookbook runs."""

import ast
import inspect
import re
import tomllib
from dataclasses import fields, replace
from datetime import date
from pathlib import Path

import pytest

from intent_platform import daily, db, errors
from intent_platform import settings as settings_module
from intent_platform.events.contract_page import contract_page
from intent_platform.events.mapping import KNOWN_KEYS
from intent_platform.keys import create_missing_keys
from intent_platform.settings import Settings
from intent_platform.synthetic import write_shop

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FIRST_DAY = date(2026, 8, 1)


@pytest.fixture(scope="module")
def settings_with_days(module_settings, tmp_path_factory):
    """Two days and the catalogue of a small synthetic shop, taken through the whole daily path; tests only look."""
    settings = replace(module_settings, encoder="none")  # torch is not what these tests are about
    create_missing_keys(settings)
    shop = tmp_path_factory.mktemp("shop")
    write_shop(shop, first_day=FIRST_DAY, days=2, users=100, seed=7)
    daily.load_catalogue(settings, path=str(shop / "catalogue.csv"))
    for name in ("2026-08-01", "2026-08-02"):
        path = str(shop / "events" / f"{name}.csv")
        daily.run_day(date.fromisoformat(name), settings, path=path, max_rejected_ratio=0.5)
    return settings


def sql_blocks(page: str) -> list[str]:
    return re.findall(r"^```sql\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def rows_of(settings: Settings, statement: str) -> list:
    """Run one statement as `intent sql` does: read-only, without parameters."""
    with db.connect(settings) as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        return list(connection.exec_driver_sql(statement).all())


def test_the_contract_page_is_made_from_the_contract():
    written = (DOCS / "contract.md").read_text(encoding="utf-8")
    assert written == contract_page(), "run `python -m intent_platform.events.contract_page > docs/contract.md`"


def test_every_query_of_the_cookbook_runs(settings_with_days):
    queries = sql_blocks("sql-cookbook.md")
    assert len(queries) >= 10
    found = [len(rows_of(settings_with_days, query)) for query in queries]
    assert sum(count > 0 for count in found) >= len(queries) - 6  # no model is trained on two days: no hot shoppers


def test_every_check_holds_after_a_day(settings_with_days):
    checks = sorted((ROOT / "sql" / "checks").glob("*.sql"))
    assert len(checks) >= 5
    found = {path.stem: rows_of(settings_with_days, path.read_text(encoding="utf-8")) for path in checks}
    assert {name: rows for name, rows in found.items() if rows} == {}


DAMAGE = {
    "file_accounts_add_up": "DELETE FROM quality.rule_account",
    "clean_days_add_up": "DELETE FROM quality.event_count WHERE event_type = 'view'",
    "clean_days_come_from_files": "DELETE FROM quality.clean_day WHERE day = '2026-08-01'",
    "profiles_name_known_releases": "UPDATE profiles.user_profile SET promotion_number = 99",
    "recommended_items_can_be_bought": "UPDATE profiles.item SET is_available = FALSE, updated_at = '2026-01-01'",
    "interests_sum_to_one": "UPDATE profiles.user_interest SET weight = weight / 2",
    "nearline_events_are_counted_once": (
        "INSERT INTO inbox.accepted (shop, received_on, seq, event_id, event_type, occurred_at, day) "
        "VALUES ('main', '2026-08-01', 1, 'e', 'view', now(), '2026-08-01')"
    ),
    "user_ids_are_pseudonyms": "UPDATE profiles.user_profile_history SET user_id = 'customer-' || user_id",
}


def test_every_check_finds_what_it_is_for(settings_with_days):
    for path in sorted((ROOT / "sql" / "checks").glob("*.sql")):
        with db.connect(settings_with_days) as connection:
            connection.exec_driver_sql(DAMAGE[path.stem])
            assert connection.exec_driver_sql(path.read_text(encoding="utf-8")).all(), path.stem
            connection.rollback()


def test_every_setting_is_explained_in_operations_as_in_the_code():
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    explained = _docstrings_of_fields(Settings)
    assert list(explained) == [each.name for each in fields(Settings)]
    lines = [f"| `INTENT_{name.upper()}` | " for name in explained]
    assert [line for line in lines if line not in page] == []
    assert [text for text in explained.values() if text not in page] == []


def test_every_kind_of_error_is_explained_in_operations():
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    kinds = [name for name, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.IntentError)]
    assert [name for name in kinds if name != "IntentError" and f"`{name}`" not in page] == []


def test_every_key_of_a_mapping_is_explained():
    page = (DOCS / "mapping.md").read_text(encoding="utf-8")
    keys = [f"{section}.{key}" if section else key for section, known in KNOWN_KEYS.items() for key in sorted(known)]
    assert [key for key in keys if f"`{key}`" not in page and f"`[{key}]`" not in page] == []


def test_the_example_mapping_of_the_docs_is_a_mapping(tmp_path):
    from intent_platform.events.mapping import load_mapping

    (example,) = re.findall(r"^```toml\n(.*?)^```", (DOCS / "mapping.md").read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "boots.toml").write_text(example, encoding="utf-8")
    assert load_mapping(str(tmp_path / "boots.toml")).columns == tomllib.loads(example)["columns"]


def test_the_documents_link_to_files_that_are_there():
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_files_that_the_readme_and_the_architecture_name_are_there():
    for page in ("README.md", "ARCHITECTURE.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        named = re.findall(r"`((?:intent_platform|sql|docs|dags|plugins|sources|tests|benchmarks)/[\w./-]*)`", text)
        assert [path for path in named if not (ROOT / path).exists()] == [], page


def test_the_import_ladder_of_the_architecture_is_the_one_that_is_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    ladder = project["tool"]["importlinter"]["contracts"][0]
    rungs = [rung.replace("intent_platform.", "") for rung in ladder["layers"]]
    assert "\n".join(rungs) in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def _docstrings_of_fields(cls: type) -> dict[str, str]:
    """The string that stands below each annotated name of a class."""
    (tree,) = [
        node
        for node in ast.parse(inspect.getsource(settings_module)).body
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    ]
    found = {}
    for name, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(name, ast.AnnAssign) and isinstance(name.target, ast.Name) and isinstance(below, ast.Expr):
            found[name.target.id] = ast.literal_eval(below.value)
    return found
