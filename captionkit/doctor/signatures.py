"""What a file that is no image seems to be instead."""

from __future__ import annotations

_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xff\x0a", "a JPEG XL picture, which Pillow cannot read"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture, which Pillow cannot read"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM film"),
    (b"II*\x00", "a TIFF or raw photo that Pillow cannot read"),
    (b"MM\x00*", "a TIFF or raw photo that Pillow cannot read"),
    (b"\xff\xd8", "a JPEG whose header is damaged"),
    (b"\x89PNG", "a PNG whose header is damaged"),
    (b"GIF8", "a GIF whose header is damaged"),
)
_BRANDS = {
    b"heic": "a HEIC photo", b"heix": "a HEIC photo", b"mif1": "a HEIF photo",
    b"hevc": "a HEIC sequence", b"avif": "an AVIF picture", b"avis": "an AVIF sequence",
}  # fmt: skip


def guess(start: bytes) -> str:
    """From the first bytes (256 will do), what a file is; empty where that cannot be told."""
    for signature, what in _STARTS:
        if start.startswith(signature):
            return what
    if start[4:8] == b"ftyp":
        brand = _BRANDS.get(start[8:12])
        return f"{brand}, for which Pillow lacks a plugin" if brand else "a film (MP4, MOV)"
    if start and not start.strip(b"\0"):
        return "nothing but zeros: a download or disk that failed"
    return _kind_of_text(start)


def _kind_of_text(start: bytes) -> str:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text:
        return "an SVG drawing, which Pillow cannot read"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page, perhaps a server's error message"
    if text.startswith((b"<?xml", b"<error")):
        return "XML, perhaps a server's error message"
    if text.startswith((b"{", b"[")):
        return "JSON, perhaps a server's error message"
    # a character may be cut in two at the end
    try:
        decoded = start.decode("utf-8", "strict" if len(start) < 200 else "ignore")
    except UnicodeDecodeError:
        return ""
    printable = sum(c.isprintable() or c.isspace() for c in decoded)
    return "text" if len(decoded) > 3 and printable == len(decoded) else ""
