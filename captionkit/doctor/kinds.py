"""What may be wrong with a dataset, how serious each is, and what to do about it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


class Kind(NamedTuple):
    """One thing that may be wrong; `units` are what is counted, one and many."""

    level: Level
    units: tuple[str, str]
    title: str
    advice: str


_FILES, _IMAGES, _CAPTIONS = ("file", "files"), ("image", "images"), ("caption", "captions")
_ROWS, _GROUPS = ("row", "rows"), ("group", "groups")
_AGAIN = "Get them anew, or go on without them: --on-bad-image skip."

# in the order in which they are told
KINDS: dict[str, Kind] = {
    "load": Kind(
        "error", ("split", "splits"), "The source refuses the data",
        "The message says what to change.",
    ),
    "bad_encoding": Kind(
        "error", ("line", "lines"), "Text that is not UTF-8",
        "Save the file with UTF-8 encoding.",
    ),
    "bad_row": Kind(
        "error", _ROWS, "Rows that cannot be read",
        "Correct these lines; the dataset is refused as long as they are there.",
    ),
    "outside": Kind(
        "error", _ROWS, "Paths that lead out of the data folder",
        "Set --data-dir to a folder that holds all images, or allow them: --allow-outside-paths.",
    ),
    "url": Kind(
        "error", _ROWS, "Addresses instead of files",
        "Download the images and list their paths, or have them fetched: --allow-urls.",
    ),
    "bad_name": Kind(
        "error", _FILES, "File names that are not UTF-8",
        "Rename them (convmv renames whole folders); the dataset is refused until then.",
    ),
    "missing": Kind(
        "error", _FILES, "Images that are not there",
        "Get them, correct their paths, or go on without them: --on-bad-image skip.",
    ),
    "not_a_file": Kind(
        "error", _FILES, "Folders, pipes and devices in an image's place", "Take them out.",
    ),
    "no_permission": Kind(
        "error", _FILES, "Files that may not be read",
        "Change their permissions (chmod u+r), or run as their owner.",
    ),
    "empty_file": Kind("error", _FILES, "Empty files (0 bytes)", _AGAIN),
    "unreadable": Kind("error", _FILES, "Files that are no images, or damaged", _AGAIN),
    "truncated": Kind("error", _FILES, "Files that end too early", _AGAIN),
    "bomb": Kind(
        "error", _FILES, "Pictures too large to decode safely",
        "Scale them down, or take them out; a few bytes may claim any size.",
    ),
    "no_caption": Kind(
        "error", _IMAGES, "Images without a caption",
        "Write one, or take them out; the dataset is refused as long as they are there.",
    ),
    "empty_caption": Kind(
        "error", _IMAGES, "Images with an empty caption",
        "Fill it in, or take it out; the dataset is refused as long as it is there.",
    ),
    "too_many_tokens": Kind(
        "error", _CAPTIONS, "Captions longer than the model allows",
        "Shorten them, or have them cut: --max-caption-tokens.",
    ),
    "no_tokens": Kind(
        "error", _CAPTIONS, "Captions that the tokenizer makes nothing of",
        "Write them in words that the model's tokenizer knows.",
    ),
    "leak_image": Kind(
        "error", _GROUPS, "The same picture in two splits",
        "Take it out of one: scores on pictures that were trained on mean nothing.",
    ),
    "leak_id": Kind(
        "warning", ("id", "ids"), "The same id in two splits, with different pictures",
        "Check that the splits are what they should be.",
    ),
    "no_image": Kind(
        "warning", _CAPTIONS, "Captions without an image",
        "They are not used. Add the image, or remove them.",
    ),
    "unlisted": Kind(
        "warning", _IMAGES, "Images that no caption belongs to",
        "They are not used. List them with a caption, or remove them.",
    ),
    "other_format": Kind(
        "warning", _FILES, "Pictures of a kind that is not read",
        "They are not used. Convert them to JPEG or PNG.",
    ),
    "incomplete": Kind(
        "warning", _IMAGES, "Progressive JPEGs whose last scans are missing",
        "They are blurred. Get them anew.",
    ),
    "same_bytes": Kind(
        "warning", _GROUPS, "The same file several times",
        "Keep one, with all the captions: copies count double. --group-by-content keeps them on "
        "one side of the split.",
    ),
    "same_pixels": Kind(
        "warning", _GROUPS, "The same picture in different files",
        "Keep one, with all the captions: copies count double, and a random split may put them on "
        "both sides.",
    ),
    "near_duplicate": Kind(
        "warning", _GROUPS, "Pictures that look nearly the same",
        "Look at them: copies in other sizes or qualities are found as well as series.",
    ),
    "blank": Kind(
        "warning", _IMAGES, "Pictures of a single colour",
        "Often a server's placeholder. Look at them.",
    ),
    "tiny": Kind("warning", _IMAGES, "Tiny pictures", "Look whether they show anything."),
    "narrow": Kind(
        "warning", _IMAGES, "Very long and narrow pictures",
        "Most of it is squeezed or cropped away; some models refuse them.",
    ),
    "huge": Kind(
        "warning", _IMAGES, "Huge pictures",
        "Scale them down: decoding them takes much time and memory in every epoch.",
    ),
    "wrong_extension": Kind(
        "warning", _FILES, "Names that say another format than the content",
        "captionkit goes by the content; other programs may not. Rename them.",
    ),
    "constant_captions": Kind(
        "warning", _CAPTIONS, "One caption for most images",
        "A model learns to say just this. Check that the right column was read.",
    ),
    "encoding_damage": Kind(
        "warning", _CAPTIONS, "Captions with damaged characters",
        "They were read with a wrong encoding once. Make them anew, or repair them (ftfy does).",
    ),
    "repeated_caption": Kind(
        "warning", _IMAGES, "The same caption twice on one image", "Keep one of them.",
    ),
    "long_caption": Kind(
        "warning", _CAPTIONS, "Very long captions",
        "Look whether these are captions; the model's limit is checked with --model.",
    ),
    "unknown_tokens": Kind(
        "warning", _CAPTIONS, "Captions of words that the tokenizer does not know",
        "Another model's tokenizer may suit this language or spelling better.",
    ),
    "shared_caption": Kind(
        "note", _CAPTIONS, "The same caption on several images",
        "Usual where captions are short; many of them teach a model to be vague.",
    ),
    "leak_captions": Kind(
        "note", ("set of captions", "sets of captions"),
        "Images of two splits with the same captions",
        "Check whether these are the same pictures; --near-duplicates compares how they look.",
    ),
    "animated": Kind(
        "note", _IMAGES, "Animations and files of several pages", "The first picture is used.",
    ),
    "odd_mode": Kind(
        "note", _IMAGES, "Unusual colours (CMYK, 16 bits, 1 bit and others)",
        "Converted to 8-bit RGB.",
    ),
    "transparent": Kind("note", _IMAGES, "Transparent pictures", "Shown to the model on white."),
    "rotated": Kind(
        "note", _IMAGES, "Pictures that EXIF says to turn", "They are turned upright.",
    ),
    "broken_metadata": Kind(
        "note", _IMAGES, "Damaged EXIF or colour profiles", "They are left aside.",
    ),
}  # fmt: skip
