"""The archive of the book for reading from the disk, as `make offline` has written it."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.book.built import DOCUMENTS
from tools.offline import ARCHIVE, HTML, NAME, pack


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The unpacked archive."""
    if not ARCHIVE.exists():
        pytest.skip("there is no archive; `make offline` writes it and runs these tests")
    place = tmp_path_factory.mktemp("offline")
    with ZipFile(ARCHIVE) as packed:
        packed.extractall(place)
    return place / NAME


@pytest.mark.built
def test_the_archive_holds_one_folder_with_the_first_page_and_every_page(folder):
    assert [path.name for path in folder.parent.iterdir()] == [NAME]
    pages = ["index", "search", *DOCUMENTS]
    assert [page for page in pages if not (folder / f"{page}.html").is_file()] == []


@pytest.mark.built
def test_the_same_pages_make_the_same_archive(folder, tmp_path):
    """So what `test_pages` says of their links holds in the archive as well."""
    pack(HTML, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == ARCHIVE.read_bytes()


def test_names_are_sorted_and_times_are_fixed(tmp_path):
    for name in ("b.html", "a.html", ".buildinfo"):
        (tmp_path / "html").mkdir(exist_ok=True)
        Path(tmp_path / "html" / name).write_text(name, "utf-8")
    pack(tmp_path / "html", tmp_path / "book.zip")
    with ZipFile(tmp_path / "book.zip") as packed:
        entries = packed.infolist()
    assert [entry.filename for entry in entries] == [f"{NAME}/a.html", f"{NAME}/b.html"]
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
