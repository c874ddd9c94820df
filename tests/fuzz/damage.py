"""Damage to the bytes of a file, drawn by a seed."""

import random


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with a few bits flipped, bytes overwritten, a piece cut out or doubled."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        if not data:
            break
        place, size = draw.randrange(len(data)), draw.choice((1, 2, 4, 16, 200))
        match draw.randrange(6):
            case 0:
                data[place] ^= 1 << draw.randrange(8)
            case 1:
                data[place : place + size] = draw.randbytes(size)
            case 2:
                del data[place : place + size]
            case 3:
                data[place:place] = data[place : place + size]
            case 4:
                data[place:] = b""
            case 5:
                data[place : place + size] = draw.choice((b"\0", b"\xff", b"\x7f")) * size
    return bytes(data)
