"""What the page on other frameworks prints is what its code prints."""

import re

import pytest

from tests.backends.page import PARTS, blocks, is_here, printed

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_page_prints_what_is_stored(part):
    """Words must be equal, and numbers nearly: they depend on the machine's arithmetic."""
    if not is_here(part):
        pytest.skip(f"{PARTS[part]} is not installed")
    _, stored = blocks(part)
    for ours, theirs in zip(printed(part), stored, strict=True):
        assert _NUMBER.sub("#", ours) == _NUMBER.sub("#", theirs)
        numbers = [[float(n) for n in _NUMBER.findall(text)] for text in (ours, theirs)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.06)
