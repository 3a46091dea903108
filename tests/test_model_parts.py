"""Immutable parts: whole or not at all, and every byte checked."""

import pytest

from intent_platform.errors import ReleaseInvalid
from intent_platform.model import parts

FLAT_DIGEST = "520db5a8827f6459e0677a7cd9f3278fd038cd0cd5e601f527097e0b9f66bf95"


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


def test_a_part_without_folders_keeps_the_digest_it_always_had(folder):
    assert parts.digest_of_folder(folder) == FLAT_DIGEST


@pytest.mark.parametrize("root", ["file", "memory"])
def test_a_part_may_hold_folders(tmp_path, folder, root):
    (folder / "encoder" / "deep").mkdir(parents=True)
    (folder / "encoder" / "deep" / "weights").write_bytes(b"more")
    lake = str(tmp_path / "lake") if root == "file" else "memory://lake-with-folders"
    opened = parts.open_part(lake, "model", parts.publish_part(lake, "model", folder), tmp_path / "cache")
    assert (opened / "encoder" / "deep" / "weights").read_bytes() == b"more"
    (opened / "encoder" / "deep" / "weights").write_bytes(b"less")
    parts._checked.cache_clear()
    with pytest.raises(ReleaseInvalid, match="encoder/deep/weights was changed"):
        parts.open_part(lake, "model", opened.name, tmp_path / "cache")


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
    with pytest.raises(ReleaseInvalid, match=r"release.json is missing; mend INTENT_LAKE, promote another release"):
        parts.read_small_file(str(tmp_path / "lake" / "release.json"))


def test_an_object_store_holds_the_same_parts(tmp_path, folder):
    digest = parts.publish_part("memory://lake-of-test", "model", folder)
    opened = parts.open_part("memory://lake-of-test", "model", digest, tmp_path / "cache")
    assert (opened / "b.bin").read_bytes() == b"weights"
