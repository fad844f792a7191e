"""Pack the built HTML book into one archive that opens from the disk: `make offline`."""

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from tools import ROOT

NAME = "vanishing-and-exploding-gradients"
HTML = ROOT / "_build" / "html"
ARCHIVE = ROOT / "dist" / f"{NAME}.zip"


def pack(folder: Path, archive: Path, name: str = NAME) -> None:
    """Write a folder into an archive, under a name; the same files make the same bytes."""
    archive.parent.mkdir(exist_ok=True)
    with ZipFile(archive, "w", ZIP_DEFLATED, compresslevel=9) as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            inside = path.relative_to(folder)
            # Neither Sphinx's own notes nor the themes' templates belong to the book.
            if not inside.name.startswith(".") and not inside.match("*webpack-macros.html"):
                entry = ZipInfo(f"{name}/{inside.as_posix()}")  # of the first day of 1980
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, path.read_bytes(), ZIP_DEFLATED, compresslevel=9)


if __name__ == "__main__":
    pack(HTML, ARCHIVE)
    print(f"{ARCHIVE.relative_to(ROOT)}: {ARCHIVE.stat().st_size / 1e6:.1f} MB")
