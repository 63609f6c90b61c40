"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnist_tuner.trainer.files import atomic_path, atomic_write


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
