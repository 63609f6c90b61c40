"""Files that are whole or not there."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.trainer.files import atomic_path, atomic_write, parse_json, read_file


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\x00\xff", b"\x00\xff"), ("grün\n", b"gr\xc3\xbcn\n"), ("a\r\nb\n", b"a\r\nb\n"), ("", b"")],
)
def test_content_is_written_byte_for_byte_and_text_as_utf_8(tmp_path: Path, content: str | bytes, expected: bytes) -> None:
    atomic_write(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == expected


def test_a_file_that_exists_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("something much longer than what follows")
    atomic_write(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_path_is_in_the_same_folder_and_keeps_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".keras"
        assert temporary != path
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert not temporary.exists()


def test_two_writers_of_one_path_do_not_share_a_temporary_path(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        atomic_write(tmp_path / "nowhere" / "file", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_files_place_is_an_os_error_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises(OSError, match="file"):
        atomic_write(path, "text")
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "link.html", tmp_path / "elsewhere" / "page.html"
    link.symlink_to(target)
    for content in ("first", "second"):  # into what is not there yet, and into what is
        atomic_write(link, content)
        assert (link.is_symlink(), target.read_text()) == (True, content)
    assert list(target.parent.iterdir()) == [target]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    """As /dev/full is."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    except PermissionError:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize("make", [pipe, device, Path.mkdir])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_not_replaced(make: Callable[[Path], None], linked: bool, tmp_path: Path) -> None:
    make(path := tmp_path / "there")
    before = path.lstat()
    if linked:
        (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="there") as caught:
        atomic_write(tmp_path / "link" if linked else path, "content")
    assert caught.value.strerror
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert len(list(tmp_path.iterdir())) == 1 + linked


@pytest.mark.parametrize("make", [pipe, device])
def test_what_could_be_waited_for_is_not_read(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(path := tmp_path / "there")
    with pytest.raises(InputError, match="there: expected a file, and it is a"):
        read_file(path)


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(InputError, match="expected a file of 4 bytes at most, and it is one of 5"):
        read_file(path, 4)
    with path.open("wb") as file:
        file.truncate(2**40)  # of which nothing is on the disk
    with pytest.raises(InputError, match="at most"):
        read_file(path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1] 2",
        "NaN",
        "[Infinity]",
        "[1e999]",
        '"\\ud800"',
        '["\\uDFFF"]',
        "[" * 100_000,
        "9" * 5000,
        b"\xff",
        b'"\xed\xa0\x80"',
    ],
)
def test_what_is_no_document_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_a_document_is_read() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, "\\ud83d\\ude00", "\\\\ud800"]}') == {"a": [1, 2.5, None, "\U0001f600", "\\ud800"]}
    assert parse_json("[Infinity]", finite=False) == [float("inf")]
