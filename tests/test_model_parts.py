"""Immutable parts: whole or not at all, and every byte checked."""

import pytest

from intent_platform.errors import ReleaseInvalid
from intent_platform.model import parts


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    (folder / "b.bin").write_bytes(b"weights")
    return folder


def test_a_part_is_named_by_its_bytes(tmp_path, folder):
    digest = parts.publish_part(str(tmp_path / "lake"), "model", folder)
    assert parts.publish_part(str(tmp_path / "lake"), "model", folder) == digest
    opened = parts.open_part(str(tmp_path / "lake"), "model", digest, tmp_path)
    assert (opened / "b.bin").read_bytes() == b"weights"
    assert sorted(each.name for each in opened.parent.iterdir()) == [digest]


@pytest.mark.parametrize(
    ("harm", "said"), [("change", "b.bin was changed"), ("lose", "b.bin was missing"), ("add", "c was added")]
)
def test_a_part_with_other_bytes_is_refused(tmp_path, folder, harm, said):
    digest = parts.publish_part(str(tmp_path / "lake"), "model", folder)
    place = tmp_path / "lake" / "model" / digest
    if harm == "change":
        (place / "b.bin").write_bytes(b"weightz")
    elif harm == "lose":
        (place / "b.bin").unlink()
    else:
        (place / "c").write_bytes(b"")
    with pytest.raises(ReleaseInvalid, match=said):
        parts.open_part(str(tmp_path / "lake"), "model", digest, tmp_path)


def test_a_missing_part_is_named(tmp_path):
    with pytest.raises(ReleaseInvalid, match="is missing; promote another release"):
        parts.open_part(str(tmp_path / "lake"), "model", "0" * 64, tmp_path)


def test_an_object_store_holds_the_same_parts(tmp_path, folder):
    digest = parts.publish_part("memory://lake-of-test", "model", folder)
    opened = parts.open_part("memory://lake-of-test", "model", digest, tmp_path / "cache")
    assert (opened / "b.bin").read_bytes() == b"weights"
