"""Whether a progressive JPEG has all its scans (ITU-T T.81, annex G)."""

from __future__ import annotations

_SOF2, _SOS, _EOI = 0xC2, 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA)}  # TEM, RST0 to RST7, SOI, EOI


def missing_scans(content: bytes) -> bool:
    """Whether bits of some coefficients are in no scan, so that the picture stays blurred.

    False for what is no progressive JPEG. The entropy-coded data themselves are not read.
    """
    components: list[int] = []
    done: dict[int, set[int]] = {}  # by component the coefficients that have their last bit
    for marker, body in _segments(content):
        if marker == _SOF2 and len(body) >= 6:
            components = [body[6 + 3 * i] for i in range(body[5]) if 6 + 3 * i < len(body)]
            done = {component: set() for component in components}
        elif marker == _SOS and body and len(body) >= 4 + 2 * body[0]:
            count = body[0]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            for i in range(count):
                if bits & 15 == 0 and body[1 + 2 * i] in done:
                    done[body[1 + 2 * i]].update(range(first, last + 1))
    return bool(components) and any(len(seen) < 64 for seen in done.values())


def _segments(content: bytes) -> list[tuple[int, bytes]]:
    """(marker, body) of each segment up to the end of the image."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while (at := content.find(b"\xff", at)) != -1 and at + 1 < len(content):
        marker = content[at + 1]
        if marker == _EOI:
            break
        if marker in (0x00, 0xFF):  # a stuffed byte of the data, or fill
            at += 1 if marker == 0xFF else 2
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            length = int.from_bytes(content[at + 2 : at + 4], "big")
            found.append((marker, content[at + 4 : at + 2 + length]))
            at += 2 + max(length, 2)
    return found
