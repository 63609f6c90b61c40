"""Files in folders and archives: what is read, and what an archive may not do."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from mnist_tuner.errors import InputError
from mnist_tuner.mnist.data import load_dataset
from mnist_tuner.mnist.reading import files
from mnist_tuner.mnist.reading.files import SMALL, file_at, files_in_archive, files_in_folder, is_archive
from tests.support.digits import check, idx_files, write, write_all


def refusal(read: Callable[[], object]) -> str:
    """The message with which something is refused; it is one line."""
    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def peak(read: Callable[[], object]) -> int:
    """The most memory that Python had at once, in bytes."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def zip_of(path: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_links_to_files_are_followed_and_devices_and_pipes_are_not_opened(tmp_path: Path) -> None:
    """Hugging Face's cache is made of links."""
    blobs = write_all(tmp_path / "blobs", idx_files())
    folder = tmp_path / "data"
    folder.mkdir()
    for path in blobs.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "broken").symlink_to("nowhere")
    (folder / "above").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "pipe")
    assert sorted(file.name for file in files_in_folder(folder)) == sorted(idx_files())
    check(load_dataset(folder))
    assert refusal(lambda: load_dataset(folder / "pipe")) == f"{folder / 'pipe'}: not a regular file"


def test_a_packed_file_that_grows_beyond_measure_is_refused(tmp_path: Path) -> None:
    bomb = write(tmp_path / "train-images-idx3-ubyte.gz", gzip.compress(bytes(SMALL + (1 << 20))))

    def read() -> None:
        assert "unpacks to more than" in refusal(lambda: read_through(bomb))

    assert peak(read) < 16 * 2**20


def read_through(path: Path) -> None:
    with file_at(path).open() as stream:
        while stream.read(1 << 16):
            pass


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_read(kind: str, tmp_path: Path) -> None:
    content = bytes(SMALL // 2 + 1)
    path = tmp_path / f"data.{kind}"
    if kind == "zip":
        zip_of(path, {"a": content, "b": content})
    else:
        tar_of(path, (tarfile.TarInfo("a"), content), (tarfile.TarInfo("b"), content))
    assert "too much for its size" in refusal(lambda: load_dataset(path))


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_FILES", 10)
    path = zip_of(tmp_path / "data.zip", {str(number): b"" for number in range(11)})
    assert "more than 10 files" in refusal(lambda: load_dataset(path))
    for number in range(11):
        write(tmp_path / "folder" / str(number), b"")
    assert "more than 10 files" in refusal(lambda: load_dataset(tmp_path / "folder"))


def test_a_tars_header_cannot_ask_for_all_the_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    path = write(tmp_path / "data.tar.gz", gzip.compress(header.tobuf() + bytes(1 << 20)))

    def read() -> None:
        assert "a damaged archive" in refusal(lambda: load_dataset(path))

    assert peak(read) < 64 * 2**20


def test_only_the_regular_files_of_an_archive_are_read(tmp_path: Path) -> None:
    members = []
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    for number, kind in enumerate(kinds):
        member = tarfile.TarInfo(f"special-{number}")
        member.type, member.linkname = kind, "/etc/passwd"
        members.append((member, b""))
    tar = tar_of(tmp_path / "data.tar", *members, (tarfile.TarInfo("./../plain"), b"here"), (tarfile.TarInfo("._plain"), b""))
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    packed = tmp_path / "data.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("folder/", b"")
        archive.writestr("plain", b"here")
    with ExitStack() as stack:
        assert [file.name for file in files_in_archive(packed, stack)] == ["plain"]
        assert all("special" not in file.name for file in files_in_archive(tar, stack))


def test_an_encrypted_archive_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "data.zip", {"a": b"content"}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert refusal(lambda: load_dataset(path)) == f"{path}: encrypted: unpack it, and give the folder"


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar"])
def test_an_archive_cut_anywhere_is_refused_in_a_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{kind}"
    contents = idx_files()
    if kind == "zip":
        zip_of(path, contents)
    else:
        tar_of(path, *((tarfile.TarInfo(name), content) for name, content in contents.items()))
    whole = path.read_bytes()
    for share in (0.0, 0.001, 0.1, 0.5, 0.8):
        path.write_bytes(whole[: int(share * len(whole))])
        assert str(path) in refusal(lambda: load_dataset(path))


def test_what_is_a_zip_inside_is_not_taken_for_an_archive(tmp_path: Path) -> None:
    for name, archive in (("a.zip", True), ("a.npz", False), ("a.xlsx", False), ("a.pt", False)):
        assert is_archive(zip_of(tmp_path / name, {"a": b""})) is archive
