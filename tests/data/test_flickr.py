import json
from pathlib import Path

import pytest
from PIL import Image

from captionkit.data import load_splits
from captionkit.data.flickr import flickr_name, load_flickr8k, load_flickr30k
from captionkit.errors import DataError
from captionkit.recipe import DataConfig

NAMES = [f"{i}00{i}_a{i}.jpg" for i in range(5)]
SPLITS = {"train": NAMES[:3], "validation": NAMES[3:4], "test": NAMES[4:]}
TEXTS = {name: (f"a dog , number {i} .", f'a "{i}" again') for i, name in enumerate(NAMES)}


def photos(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in NAMES:
        Image.new("RGB", (4, 3)).save(folder / name)


def tokens(separator: str, header: str = "") -> str:
    lines = [header] if header else []
    for name, texts in TEXTS.items():
        lines += [separator.format(name=name, n=n, text=text) for n, text in enumerate(texts)]
    return "\n".join(lines) + "\n"


def karpathy(name: str) -> str:
    words = {"train": ["train", "train", "restval"], "validation": ["val"], "test": ["test"]}
    images = [
        {
            "filename": name,
            "split": split,
            "sentences": [{"raw": text, "tokens": []} for text in TEXTS[name]],
        }
        for part, names in SPLITS.items()
        for split, name in zip(words[part], names)
    ]
    return json.dumps({"dataset": name, "images": images})


LISTS8 = {"train": "train", "validation": "dev", "test": "test"}


def original_8k(root):
    photos(root / "Flicker8k_Dataset")
    (root / "Flickr8k_text").mkdir()
    (root / "Flickr8k_text/Flickr8k.token.txt").write_text(tokens("{name}#{n}\t{text}"))
    for split, word in LISTS8.items():
        text = "\r\n".join(SPLITS[split]) + "\r\n"
        (root / f"Flickr8k_text/Flickr_8k.{word}Images.txt").write_text(text)


def karpathy_8k(root):
    photos(root / "Images")
    (root / "dataset_flickr8k.json").write_text(karpathy("flickr8k"))


def original_30k(root):
    photos(root / "flickr30k-images")
    (root / "results_20130124.token").write_text(tokens("{name}#{n}\t{text}"))
    for split, file in {"train": "train", "validation": "val", "test": "test"}.items():
        (root / f"{file}.txt").write_text("\n".join(Path(n).stem for n in SPLITS[split]))


def karpathy_30k(root):
    photos(root / "flickr30k_images" / "flickr30k_images")
    (root / "dataset_flickr30k.json").write_text(karpathy("flickr30k"))


LAYOUTS = {
    "flickr8k": [original_8k, karpathy_8k],
    "flickr30k": [original_30k, karpathy_30k],
}


@pytest.mark.parametrize(
    ("source", "layout"), [(name, layout) for name in LAYOUTS for layout in LAYOUTS[name]]
)
def test_layouts_with_splits(tmp_path, source, layout):
    layout(tmp_path)
    assert flickr_name(tmp_path) == source
    config = DataConfig(data_dir=str(tmp_path))
    load = {"flickr8k": load_flickr8k, "flickr30k": load_flickr30k}[source]
    for split, names in SPLITS.items():
        dataset = load(config, split)
        assert dataset.image_ids == names
        assert [example.captions for example in dataset] == [TEXTS[name] for name in names]
        assert dataset[0].image.size == (4, 3)
    assert load(config, "other") is None
    train, validation = load_splits(config, seed=0)  # found without its name
    assert (train.image_ids, validation.image_ids) == (SPLITS["train"], SPLITS["validation"])


def kaggle_quotes(name: str, text: str) -> str:
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if '"' in text or "," in text else text


@pytest.mark.parametrize("quoted", [True, False])
def test_kaggles_form_of_8k(tmp_path, quoted):
    photos(tmp_path / "Images")
    lines = ["image,caption"]
    for name, texts in TEXTS.items():
        lines += [f"{name},{kaggle_quotes(name, text) if quoted else text}" for text in texts]
    (tmp_path / "captions.txt").write_text("\n".join(lines))
    config = DataConfig(dataset="flickr8k", data_dir=str(tmp_path), test_size=0.2)
    dataset = load_flickr8k(config, "train")
    assert {e.image_id: e.captions for e in dataset} == TEXTS
    assert load_flickr8k(config, "validation") is None
    train, validation = load_splits(config, seed=0)
    assert (len(train), len(validation)) == (4, 1)


def test_kaggles_form_of_30k_and_its_broken_row(tmp_path):
    photos(tmp_path / "flickr30k_images")
    text = tokens("{name}| {n}| {text}", "image_name| comment_number| comment")
    broken = f"{NAMES[2]}| 1   A dog runs across the grass ."  # as in the file that is passed on
    text = text.replace(f'{NAMES[2]}| 1| a "2" again', broken)
    assert broken in text
    (tmp_path / "results.csv").write_text(text)
    dataset = load_flickr30k(DataConfig(data_dir=str(tmp_path)), "train")
    expected = TEXTS | {NAMES[2]: (TEXTS[NAMES[2]][0], "A dog runs across the grass .")}
    assert {e.image_id: e.captions for e in dataset} == expected


def test_the_name_in_8k_that_no_image_has(tmp_path):
    photos(tmp_path / "Images")
    strange = "2258277193_586949ec62.jpg.1"
    text = tokens("{name}#{n}\t{text}") + f"{strange}#0\tsome people\n"
    (tmp_path / "Flickr8k.token.txt").write_text(text)
    with pytest.warns(UserWarning, match=rf"left out: 1 \({strange}\)"):
        dataset = load_flickr8k(DataConfig(data_dir=str(tmp_path)), "train")
    assert dataset.image_ids == NAMES


def error(tmp_path, split="train", **settings) -> str:
    with pytest.raises(DataError) as caught:
        load_flickr8k(DataConfig(data_dir=str(tmp_path), **settings), split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folders_that_are_wrong(tmp_path):
    with pytest.raises(DataError, match="needs data_dir"):
        load_flickr8k(DataConfig(), "train")
    assert "does not exist" in error(tmp_path / "none")
    message = error(tmp_path)
    assert "no captions of flickr8k" in message
    assert "dataset_flickr8k.json, Flickr8k.token.txt, captions.txt" in message
    (tmp_path / "captions.txt").write_text(tokens("{name},{text}", "image,caption"))
    assert "has no images: expected them in Flicker8k_Dataset" in error(tmp_path)
    (tmp_path / "Images").mkdir()
    assert "of 5 images these are not below" in error(tmp_path)
    Image.new("RGB", (4, 3)).save(tmp_path / "Images" / NAMES[1])
    assert f"4 ({NAMES[0]}, " in error(tmp_path)
    found = load_flickr8k(DataConfig(data_dir=str(tmp_path), on_bad_image="skip"), "train")
    assert len(found) == 5  # the reader lists what is missing


def test_lists_that_are_wrong(tmp_path):
    original_8k(tmp_path)
    text = tmp_path / "Flickr8k_text"
    (text / "Flickr_8k.testImages.txt").write_text("gone.jpg\n")
    assert "names images that" in error(tmp_path, "test")
    assert "gone.jpg" in error(tmp_path, "test")
    (text / "Flickr_8k.testImages.txt").unlink()
    assert load_flickr8k(DataConfig(data_dir=str(tmp_path)), "test") is None
    (text / "Flickr_8k.trainImages.txt").unlink()
    assert "has Flickr_8k.devImages.txt, but no Flickr_8k.trainImages.txt" in error(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("Flickr8k.token.txt", b"a.jpg#0 no tab\n", "line 1: expected a line such as"),
        ("Flickr8k.token.txt", b"a.jpg#0\tx\nb.jpg\tx\n", "line 2: expected a line such as"),
        ("Flickr8k.token.txt", b"a.jpg#0\tcaf\xe9\n", "line 1: not UTF-8"),
        ("Flickr8k.token.txt", b"../a.jpg#0\tx\n", "leads out of the image folder"),
        ("Flickr8k.token.txt", b"/etc/a.jpg#0\tx\n", "leads out of the image folder"),
        ("Flickr8k.token.txt", b"..\\a.jpg#0\tx\n", "leads out of the image folder"),
        ("Flickr8k.token.txt", b"0000_a0.jpg#0\t \n", "empty caption"),
        ("captions.txt", b"image,caption\nno comma here\n", "line 2: expected a line such as"),
        ("captions.txt", b"", "is empty|no split"),
        ("dataset_flickr8k.json", b"{", "not valid JSON"),
        ("dataset_flickr8k.json", b"[" * 100_000, "not valid JSON"),
        ("dataset_flickr8k.json", b"[1]", "not in Karpathy's format"),
        ("dataset_flickr8k.json", b'{"images": [{"filename": "a.jpg"}]}', "Karpathy's format"),
        (
            "dataset_flickr8k.json",
            b'{"images": [{"filename": "../a.jpg", "split": "train", "sentences": []}]}',
            "leads out",
        ),
        (
            "dataset_flickr8k.json",
            b'{"images": [{"filename": "0000_a0.jpg", "split": "train", "sentences": []}]}',
            "without a caption: 1",
        ),
    ],
)
def test_broken_caption_files(tmp_path, name, content, expected):
    photos(tmp_path / "Images")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=expected):
        load_splits(DataConfig(dataset="flickr8k", data_dir=str(tmp_path)), seed=0)
