"""The lake publishes whole or not at all."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from intent_platform.errors import LakeConflict, NotEnoughData, SettingInvalid
from intent_platform.lake import Lake

ROWS = pa.table({"n": [1, 2, 3]})


@pytest.fixture(params=["folder", "memory"])
def lake(request, tmp_path):
    root = str(tmp_path / "lake") if request.param == "folder" else f"memory://{tmp_path.name}"
    return Lake(root, "main")


def test_written_rows_are_invisible_until_published(lake):
    before = lake.snapshot()
    file = lake.write("clean", "day=2026-08-01", ROWS)
    assert lake.snapshot().partitions("clean") == []
    lake.publish({("clean", "day=2026-08-01"): [file]}, based_on=before)
    assert lake.snapshot().read("clean")["n"].to_pylist() == [1, 2, 3]


def test_a_snapshot_keeps_what_it_saw(lake):
    first = lake.publish({("clean", "day=1"): [lake.write("clean", "day=1", ROWS)]}, based_on=lake.snapshot())
    lake.publish({("clean", "day=1"): []}, based_on=first)
    assert first.read("clean").num_rows == 3
    with pytest.raises(NotEnoughData):
        lake.snapshot().read("clean")


def test_two_writers_cannot_overwrite_each_other(lake):
    seen_by_both = lake.snapshot()
    file = lake.write("clean", "day=1", ROWS)
    lake.publish({("clean", "day=1"): [file]}, based_on=seen_by_both)
    with pytest.raises(LakeConflict, match="nothing was published"):
        lake.publish({("clean", "day=2"): [file]}, based_on=seen_by_both)
    assert lake.snapshot().partitions("clean") == ["day=1"]


def test_only_old_unpublished_files_are_removed(tmp_path):
    lake = Lake(str(tmp_path), "main")
    kept = lake.write("clean", "day=1", ROWS)
    lake.publish({("clean", "day=1"): [kept]}, based_on=lake.snapshot())
    lake.write("clean", "day=1", ROWS)
    now = datetime.now(UTC)
    assert lake.remove_unpublished(older_than=timedelta(hours=1), now=now) == 0
    assert lake.remove_unpublished(older_than=timedelta(hours=1), now=now + timedelta(hours=2)) == 1
    assert lake.snapshot().read("clean").num_rows == 3


def test_an_address_that_is_none_is_told_with_its_setting():
    with pytest.raises(SettingInvalid, match="INTENT_LAKE is 'gopher://lake', which cannot be opened: Protocol not"):
        Lake("gopher://lake", "main")
