"""Captioning collections of 100 to a million images."""

from captionkit.bulk.run import BulkResult, caption_files

__all__ = ["BulkResult", "caption_files"]
