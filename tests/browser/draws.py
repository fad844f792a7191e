"""The random numbers of book/explorables/src/random.js, drawn by NumPy."""

import numpy as np

GOLDEN, STEP = 0x9E3779B9, 0x632BE5AB


def _mix(x):
    """Hash 32-bit numbers, held in 64 bits."""
    x = np.asarray(x, np.uint64) & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)


def stream(seed, index):
    """Return the key of a stream of draws."""
    return int(_mix(int(_mix((seed + 1) * GOLDEN & 0xFFFFFFFF)) + (index + 1) * STEP % 2**32))


def uniforms(shape, key):
    """Return uniform numbers on (0, 1)."""
    counter = np.arange(int(np.prod(shape)), dtype=np.uint64)
    return ((_mix(key + counter * GOLDEN) + 0.5) / 2.0**32).reshape(shape)


def normals(shape, key):
    """Return standard normal numbers (Box and Muller)."""
    count = int(np.prod(shape))
    u = uniforms((-(-count // 2), 2), key)
    radius, angle = np.sqrt(-2 * np.log(u[:, 0])), 2 * np.pi * u[:, 1]
    pairs = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return pairs.ravel()[:count].reshape(shape)
