"""A folder with a little of everything that the pages speak of."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

CHECKPOINTS = ("git-critters", "my-captioner", "git-pokemon", "git-coco", "run", "my-run")
HUB = {
    "microsoft/git-base": "git", "google/vit-base-patch16-224-in21k": "vit", "gpt2": "gpt2",
    "google/siglip-base-patch16-224": "siglip", "FacebookAI/roberta-base": "roberta",
}  # fmt: skip
SHORT = {"max_steps": 2, "batch_size": 4, "num_beams": 2, "max_new_tokens": 8}
FEW = {"max_train_samples": 6, "max_eval_samples": 2}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Tiny checkpoints with random weights, by the names of HUB."""
    pytest.importorskip("torch")
    import transformers as t

    from captionkit.data.captions import build_word_tokenizer, save_tokenizer
    from captionkit.data.critters import attributes, captions
    from captionkit.data.preprocess import Preprocessor
    from captionkit.testing.models import GIT, VIT_GPT2

    root = tmp_path_factory.mktemp("hub")
    tokenizer = build_word_tokenizer(text for c in attributes(40) for text in captions(c))
    ids = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    ids["vocab_size"] = len(tokenizer)
    vision = GIT["vision_config"]
    text = {k: GIT[k] for k in GIT if k not in ("model_type", "vision_config")}
    text = {**text, "max_position_embeddings": 64, **ids}
    models = {
        "git": t.GitForCausalLM(t.GitConfig(vision_config=vision, **text)),
        "vit": t.ViTModel(t.ViTConfig(**vision)),
        "siglip": t.SiglipVisionModel(t.SiglipVisionConfig(**vision)),
        "gpt2": t.GPT2LMHeadModel(
            t.GPT2Config(**{**VIT_GPT2["decoder"], "n_positions": 64, **ids})
        ),
        "roberta": t.RobertaForCausalLM(t.RobertaConfig(**{**text, "is_decoder": True})),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
        if name not in ("vit", "siglip"):
            save_tokenizer(tokenizer, root / name)
        if name not in ("gpt2", "roberta"):
            Preprocessor.square(32).save(root / name)
    return root


@pytest.fixture(scope="session")
def world(tmp_path_factory, checkpoints):
    """Photos, COCO, shards and files of captions, and checkpoints that were trained a little."""
    import captionkit
    from captionkit.data.critters import attributes, captions, draw

    root = tmp_path_factory.mktemp("world")
    critters = attributes(count=16, seed=4)
    for number, critter in enumerate(critters[:12]):
        write_photo(root / "photos", number, draw(critter), captions(critter)[0])
    for number, critter in enumerate(critters[12:]):
        write_photo(root / "more-photos", number, draw(critter), None)
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        shutil.copy(root / "photos" / "00.jpg", root / name)
    texts = [list(captions(critter)) for critter in critters]
    write_caption_files(root, texts)
    write_coco(root / "data", critters)
    shutil.copytree(root / "data", root / "coco")
    write_pokemon(root / "my-pokemon", root / "photos")
    write_tables(root, texts)
    write_shards(root / "shards", texts)
    captionkit.finetune(
        model=str(checkpoints / "git"), data_dir=str(root / "photos"),
        output_dir=str(root / "made"), **{**SHORT, **FEW, "num_beams": 1},
    )  # fmt: skip
    for name in CHECKPOINTS:
        shutil.copytree(root / "made", root / name)
    return root


def write_photo(folder: Path, number: int, image, caption: str | None) -> None:
    folder.mkdir(exist_ok=True)
    image.save(folder / f"{number:02}.jpg")
    if caption:
        (folder / f"{number:02}.txt").write_text(caption)


def write_caption_files(root: Path, texts: list[list[str]]) -> None:
    """What `captionkit score` and `compare` read."""
    rows = [
        {"image_id": number, "prediction": five[0], "references": five[1:]}
        for number, five in enumerate(texts)
    ]
    for name in ("predictions.jsonl", "old.jsonl", "new.jsonl"):
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("references.json", "captions_val2014.json"):
        (root / name).write_text(json.dumps(annotations(range(16), texts)))
    lines = ["image,caption"] + [f'photos/{n:02}.jpg,"{texts[n][0]}"' for n in range(12)]
    (root / "captions.csv").write_text("\n".join(lines) + "\n")


def annotations(numbers, texts: list[list[str]]) -> dict:
    return {
        "images": [{"id": n, "file_name": f"{n:012}.jpg"} for n in numbers],
        "annotations": [
            {"id": 5 * n + i, "image_id": n, "caption": text}
            for n in numbers
            for i, text in enumerate(texts[n])
        ],
    }


def write_coco(root: Path, critters) -> None:
    from captionkit.data.critters import captions, draw

    (root / "annotations").mkdir(parents=True)
    texts = [list(captions(critter)) for critter in critters]
    for split, numbers in (("train2017", range(10)), ("val2017", range(10, 13))):
        (root / split).mkdir()
        for number in numbers:
            draw(critters[number]).save(root / split / f"{number:012}.jpg")
        content = annotations(numbers, texts)
        (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
    (root / "test2017").mkdir()
    for number in range(13, 16):
        draw(critters[number]).save(root / "test2017" / f"{number:012}.jpg")


def write_pokemon(folder: Path, photos: Path) -> None:
    """A local copy in the schema of the guide's data."""
    folder.mkdir()
    lines = []
    for image in sorted(photos.glob("*.jpg")):
        shutil.copy(image, folder)
        text = image.with_suffix(".txt").read_text()
        lines.append(json.dumps({"file_name": image.name, "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def write_tables(root: Path, texts: list[list[str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    images = [(root / "photos" / f"{n:02}.jpg").read_bytes() for n in range(12)]
    (root / "parquet").mkdir()
    table = pa.table({"image": images, "alt_text": [five[0] for five in texts[:12]]})
    pyarrow.parquet.write_table(table, root / "parquet" / "set.parquet")
    (root / "my-photos").mkdir()
    for number in range(12):
        shutil.copy(root / "photos" / f"{number:02}.jpg", root / "my-photos")
    lines = ["file_name,alt"] + [f'{n:02}.jpg,"{texts[n][0]}"' for n in range(12)]
    (root / "my-photos" / "metadata.csv").write_text("\n".join(lines) + "\n")


def write_shards(root: Path, texts: list[list[str]]) -> None:
    root.mkdir()
    image = (root.parent / "photos" / "00.jpg").read_bytes()
    names = [f"train-{n:03}" for n in range(100)] + [f"val-{n:03}" for n in range(5)]
    for number, name in enumerate(names):
        with tarfile.open(root / f"{name}.tar", "w") as tar:
            for ending, content in (("jpg", image), ("txt", texts[number % 16][0].encode())):
                member = tarfile.TarInfo(f"0001.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def here(world, checkpoints, tmp_path, monkeypatch):
    """The current folder is a copy of `world`, hub ids are tiny checkpoints, runs are short."""
    import captionkit
    from captionkit import api, models

    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "_download", lambda name, trust: checkpoints / HUB[name])
    finetune = api.finetune

    def short(recipe=None, **settings):
        plan = captionkit.Recipe.of(recipe)
        few = {} if plan.data.mix else FEW  # a mixture has them in its entries
        going_on = {"max_steps": 4} if plan.resume else {"overwrite_output_dir": True}
        return finetune(plan, **{**settings, **SHORT, **few, **going_on})

    monkeypatch.setattr(api, "finetune", short)
    monkeypatch.setattr(captionkit, "finetune", short)
    return tmp_path
