"""The noise by its definition, in NumPy: Philox4x32-10 in integers, Box-Muller in float64."""

import numpy as np

LOW = np.uint64(0xFFFFFFFF)


def philox(c0, c1, c2, c3, k0, k1):
    """Four arrays of random 32-bit integers (as uint64) of four counters and one key."""
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in (c0, c1, c2, c3))
    shift = np.uint64(32)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (p1 >> shift) ^ c1 ^ np.uint64(k0),
            p1 & LOW,
            (p0 >> shift) ^ c3 ^ np.uint64(k1),
            p0 & LOW,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def radius(x):
    u = ((np.asarray(x, np.uint64) >> np.uint64(1)).astype(np.float64) + 0.5) / 2**31
    return np.sqrt(-2 * np.log(u))


def angle(x):
    return np.asarray(x).astype(np.float64) * (2 * np.pi / 2**32)


def normals(seed: int, key: int, sample: int, count: int) -> np.ndarray:
    """float64 [count]: the standard normals of elements 0 .. count - 1."""
    quads = np.arange((count + 3) // 4, dtype=np.uint64)
    seed, key = seed & (2**64 - 1), key & (2**64 - 1)
    x = philox(quads, sample, key & 0xFFFFFFFF, key >> 32, seed & 0xFFFFFFFF, seed >> 32)
    z = np.empty((len(quads), 4))
    for pair in (0, 2):
        r, a = radius(x[pair]), angle(x[pair + 1])
        z[:, pair], z[:, pair + 1] = r * np.cos(a), r * np.sin(a)
    return z.reshape(-1)[:count]
