"""Opening captions of the size of COCO train2017, and visiting its images in shuffled order.

118,287 images and 591,753 captions, generated; the images are one tiny JPEG each, in a zip and in
a folder. Each measurement is a process of its own, whose peak memory is the system's figure
(VmHWM). Targets: 8 s the first time, 0.5 s again, under 600 MB, no growth over an epoch.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from results import keep

IMAGES, CAPTIONS = 118_287, 591_753
TEXT = (
    "a the man woman dog cat sitting on standing in front of with bench table street red white "
    "large small two people group next to near holding plate food train bus skateboard riding wave "
    "surfboard kitchen bathroom clock tower giraffe zebra elephant grass field snow player tennis"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to put (and leave) the generated files")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = given.folder or Path(scratch)
        for layout in ("zip", "folder"):
            if not (root / layout / "done").exists():
                generate(root / layout, in_zip=layout == "zip")
        size = (root / "zip/annotations/captions_train2017.json").stat().st_size / 1e6
        title = f"{IMAGES:,} images, {CAPTIONS:,} captions, {size:.0f} MB of JSON"
        print(title)
        figures: dict[str, dict[str, float]] = {}
        for layout in ("zip", "folder"):
            with tempfile.TemporaryDirectory() as cache:
                for turn in ("first", "again"):
                    figures[f"{layout}, {turn}"] = measured("open", root / layout, cache)
                figures[f"{layout}, epoch"] = measured("epoch", root / layout, cache)
    for name, values in figures.items():
        print(f"{name:<14}", "  ".join(f"{key} {value:.2f}" for key, value in values.items()))
    keep("open_coco", {"title": title, "figures": figures})


def measured(what: str, root: Path, cache: str) -> dict[str, float]:
    """The figures that a process of its own prints."""
    environment = {**os.environ, "CAPTIONKIT_CACHE": cache}
    command = [sys.executable, __file__, what, str(root)]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout
    return json.loads(output.splitlines()[-1])


# ---- in the process that is measured -----------------------------------------------------------


def opening(root: Path) -> dict[str, float]:
    # importing `datasets` takes seconds of its own, whatever is opened
    import datasets  # noqa: F401
    import pyarrow.compute  # noqa: F401

    from captionkit.data import load_dataset
    from captionkit.data.order import visits

    before = memory("VmRSS")
    started, cpu = time.perf_counter(), time.process_time()
    dataset = load_dataset("coco", data_dir=str(root), test_size=0)
    figures = {
        "seconds": time.perf_counter() - started, "CPU_seconds": time.process_time() - cpu,
        "imports_MB": before, "peak_MB": memory("VmHWM"),
    }  # fmt: skip
    assert (len(dataset), int(dataset.caption_counts().sum())) == (IMAGES, CAPTIONS)
    started = time.process_time()
    assert len(visits(dataset, "random", 0, 0)) == IMAGES
    return {**figures, "visits_CPU_seconds": time.process_time() - started}


def epoch(root: Path) -> dict[str, float]:
    """Two epochs of reading every image's bytes: memory after a tenth, one epoch and two."""
    from captionkit.data import load_dataset
    from captionkit.data.order import visits

    dataset = load_dataset("coco", data_dir=str(root), test_size=0)
    seen = []
    started = time.perf_counter()
    for number in (0, 1):
        order = visits(dataset, "random", 0, number)[:, 0].tolist()
        for count, i in enumerate(order, 1):
            source = dataset[i].source
            content = (
                source.read_bytes() if hasattr(source, "read_bytes") else Path(source).read_bytes()
            )
            assert content[:2] == b"\xff\xd8"
            if count in (IMAGES // 10, IMAGES):
                seen.append((memory("RssAnon"), memory("VmRSS")))
        del order  # or two of them are counted in the second epoch
    (early, early_all), (first, first_all), _, (second, second_all) = seen
    return {
        "images_a_second": 2 * IMAGES / (time.perf_counter() - started),
        "own_MB_after_a_tenth": early, "own_MB_after_one": first, "own_MB_after_two": second,
        "all_MB_after_a_tenth": early_all, "all_MB_after_one": first_all,
        "all_MB_after_two": second_all,
    }  # fmt: skip


def memory(name: str) -> float:
    """A figure of this process in MB: VmHWM (peak), VmRSS, RssAnon (without mapped files)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


# ---- files like COCO's -------------------------------------------------------------------------


def generate(root: Path, in_zip: bool) -> None:
    from PIL import Image

    random.seed(0)
    words = TEXT.split()
    ids = sorted(random.sample(range(1, 581_930), IMAGES))
    images = [
        {
            "license": random.randrange(1, 9),
            "file_name": f"{i:012d}.jpg",
            "coco_url": f"http://images.cocodataset.org/train2017/{i:012d}.jpg",
            "height": 480,
            "width": 640,
            "date_captured": "2013-11-14 17:02:52",
            "flickr_url": f"http://farm{i % 9 + 1}.staticflickr.com/{i % 9000}/{i:010d}_z.jpg",
            "id": i,
        }
        for i in ids
    ]
    owners = ids * 5 + random.sample(ids, CAPTIONS - 5 * IMAGES)
    random.shuffle(owners)  # as in COCO's file, the captions of an image are not together
    annotations = [
        {
            "image_id": owner,
            "id": number,
            "caption": " ".join(random.choices(words, k=random.randrange(8, 14))) + ".",
        }
        for number, owner in enumerate(owners)
    ]
    content = {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": annotations}
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    with (root / "annotations/captions_train2017.json").open("w") as file:
        json.dump(content, file)

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, "JPEG")
    if in_zip:
        with zipfile.ZipFile(root / "train2017.zip", "w") as archive:
            for image in images:
                archive.writestr(f"train2017/{image['file_name']}", buffer.getvalue())
    else:
        (root / "train2017").mkdir(exist_ok=True)
        for image in images:
            (root / "train2017" / image["file_name"]).write_bytes(buffer.getvalue())
    (root / "done").touch()


if __name__ == "__main__":
    if sys.argv[1:2] in (["open"], ["epoch"]):
        run = {"open": opening, "epoch": epoch}[sys.argv[1]]
        print(json.dumps(run(Path(sys.argv[2]))))
    else:
        main()
