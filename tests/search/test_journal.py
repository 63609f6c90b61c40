"""A search's memory on the disk."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.search.journal import Journal
from tests.support.commands import python


def made(path: Path, count: int = 3) -> Path:
    """A journal of so many entries."""
    journal = Journal.create(path, {"seed": 0})
    for number in range(count):
        journal.append({"trial": number})
    journal.close()
    return path


def trials(path: Path) -> list[int]:
    """What an opened journal holds."""
    with closing(Journal(path)) as journal:
        return [entry["trial"] for entry in journal.entries()]


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = made(tmp_path / "journal.jsonl")
    journal = Journal(path)
    assert journal.identity == {"seed": 0}
    assert list(journal.entries()) == [{"trial": 0}, {"trial": 1}, {"trial": 2}]
    assert list(journal.entries()) == [{"trial": 0}, {"trial": 1}, {"trial": 2}]  # as often as one likes
    journal.append({"trial": 3})
    journal.close()
    assert trials(path) == [0, 1, 2, 3]


@pytest.mark.parametrize("cut", range(1, len('{"trial": 2}\n')))
def test_a_torn_last_line_is_cut_off_wherever_it_was_torn(cut: int, tmp_path: Path) -> None:
    path = made(tmp_path / "journal.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    journal = Journal(path)
    assert [entry["trial"] for entry in journal.entries()] == [0, 1]
    journal.append({"trial": 2})
    journal.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [b'{"trial": 1', b"[1]", b"\x00\x00\x00", b"", b"\xff\xfe{}"])
def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(damage: bytes, tmp_path: Path) -> None:
    path = made(tmp_path / "journal.jsonl")
    lines = path.read_bytes().split(b"\n")
    lines[2] = damage
    path.write_bytes(b"\n".join(lines))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"journal\.jsonl: line 3 is damaged"):
        trials(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b'{"seed": 0}', b"\n", b"{}\n", b"not json\n"])
def test_a_journal_without_a_whole_first_line_is_damaged(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"journal\.jsonl: .*damaged"):
        trials(path)


def test_what_json_has_no_word_for_is_not_written(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal.jsonl", {"seed": 0})
    with pytest.raises(ValueError, match="JSON"):
        journal.append({"trial": float("nan")})
    journal.close()
    assert trials(tmp_path / "journal.jsonl") == []


def test_names_in_any_script_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal.create(path, {"seed": 0})
    journal.append({"trial": 0, "reason": "größer\nals 零"})
    journal.close()
    reopened = Journal(path)
    assert next(reopened.entries())["reason"] == "größer\nals 零"
    reopened.close()


@pytest.mark.parametrize("room", [0, 1, 20])
def test_an_entry_for_which_the_disk_has_no_room_leaves_the_file_as_it_was(room: int, tmp_path: Path) -> None:
    path = made(tmp_path / "journal.jsonl")
    before = path.read_bytes()
    program = f"""
import resource
from pathlib import Path
from mnist_tuner.search.journal import Journal

journal = Journal(Path({str(path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + room}, resource.RLIM_INFINITY))
try:
    journal.append({{"trial": 3, "reason": "x" * 100}})
except OSError as error:
    print(error.filename)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(Path({str(path)!r}).stat().st_size)
journal.append({{"trial": 4}})
"""
    assert python(program).splitlines() == [str(path), str(len(before))]
    assert path.read_bytes() == before + json.dumps({"trial": 4}).encode() + b"\n"
