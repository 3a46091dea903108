"""Whatever a file holds, the door counts every row of it once, or refuses the file with a reason; it never crashes.

`make fuzz-intake` runs the same over ten thousand generated files.
"""

import os
import re

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from junk import junk_files
from received import accepted_rows, broken_rules, door_of, mapping_with, taken_in, unsealed_rows, write_file

from intent_platform.errors import FileUnreadable, MappingDoesNotFit
from intent_platform.keys import create_missing_keys
from intent_platform.settings import Settings

FILES = int(os.environ.get("FUZZ_FILES", "300"))


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    """A door per format, over one lake."""
    folder = tmp_path_factory.mktemp("fuzz")
    settings = Settings(home=folder / "home", threads=2)
    create_missing_keys(settings)
    formats = ("csv", "jsonl", "parquet")
    return {each: door_of(settings, source=mapping_with(folder, name=each, format=each)) for each in formats}


@hypothesis_settings(
    max_examples=FILES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(file=junk_files())
def test_rows_in_are_rows_out_for_any_junk(doors, tmp_path, file):
    name, content = file
    door = doors[name.split(".")[1]]
    path = write_file(tmp_path, name, content)
    try:
        intake = taken_in(path, door)
    except (FileUnreadable, MappingDoesNotFit):
        return
    account = intake.account
    quarantined, unsealed = broken_rules(intake, door), unsealed_rows(intake, door)
    assert account.rows_read == account.accepted + account.quarantined + account.duplicate > 0
    assert account.quarantined == len(quarantined) == sum(account.by_rule.values())
    assert account.accepted == len(accepted_rows(intake, door))
    assert set(unsealed) == set(quarantined)
    if name == "junk.csv":
        lines = dict(enumerate(re.split(rb"\r?\n", content), start=1))
        assert all(line > 1 and lines[line] for line in quarantined)
