"""What is wrong with a dataset, found before training: images, captions, splits."""

from captionkit.doctor.examine import examine
from captionkit.doctor.findings import Diagnosis, Finding, Item

__all__ = ["examine", "Diagnosis", "Finding", "Item"]
