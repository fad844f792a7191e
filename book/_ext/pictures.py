"""Pictures: small files that keep their place free before they come, and load when near."""

import re
import struct
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

from PIL import Image

PICTURE = re.compile(r'<img ((?:[^>]*\s)?src="([^"]+\.png)"[^>]*)>')


def shrink(folder):
    """Make the pictures of a folder smaller where that needs no more than 256 colours of each."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(shrink_one, folder.glob("*.png")))


def shrink_one(path):
    """Write a picture with 256 colours, if its file is smaller then."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    packed = BytesIO()
    few.save(packed, "PNG", optimize=True)
    if len(packed.getvalue()) < path.stat().st_size:
        path.write_bytes(packed.getvalue())


def sized(text, folder):
    """Return a page whose pictures have their width and height; all but the first load late."""
    count = 0

    def with_size(match):
        nonlocal count
        attributes, source = match.groups()
        path = folder / source
        if "width=" in attributes or not path.exists():
            return match.group()
        with path.open("rb") as file:
            width, height = struct.unpack(">16x2I", file.read(24))
        count += 1
        lazy = ' loading="lazy" decoding="async"' if count > 1 else ""
        return f'<img width="{width}" height="{height}"{lazy} {attributes.rstrip("/ ")}/>'

    return PICTURE.sub(with_size, text)
