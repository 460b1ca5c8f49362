import csv
import json

import pytest

from captionkit.errors import DataError, MetricError, OutputError
from captionkit.metrics import score
from captionkit.metrics.document_frequencies import DocumentFrequencies
from captionkit.score_files import score_files

PREDICTIONS = {"139": "a dog on a beach", "285": "two, cats", "632": "a [red] bike"}
REFERENCES = {
    "632": ["a red bike", "the bike"],
    "139": ["the dog is on a beach"],
    "285": ["two cats", "cats", "some cats"],
}
EXPECTED = score(list(PREDICTIONS.values()), [REFERENCES[i] for i in PREDICTIONS], ["wer", "bleu"])


def write_predictions(folder, kind):
    path = folder / f"predictions.{kind}"
    ids, texts = list(PREDICTIONS), list(PREDICTIONS.values())
    if kind == "json":
        rows = [{"image_id": int(i), "caption": c} for i, c in PREDICTIONS.items()]
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif kind == "jsonl":
        rows = [{"image": i, "caption": c, "score": -0.5} for i, c in PREDICTIONS.items()]
        path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    elif kind == "run.jsonl":  # as a run writes it
        rows = [
            {"image_id": i, "prediction": c, "references": REFERENCES[i], "metrics": {"wer": 9.0}}
            for i, c in PREDICTIONS.items()
        ]
        path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    elif kind in ("csv", "tsv"):
        with open(path, "w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, delimiter="," if kind == "csv" else "\t")
            writer.writerows([["file_name", "text"], *zip(ids, texts)])
    return path


def write_references(folder, kind):
    path = folder / f"references.{kind}"
    pairs = [(i, c) for i, captions in REFERENCES.items() for c in captions]
    if kind == "json":  # COCO's annotations
        images = [{"id": int(i), "file_name": f"COCO_val_{int(i):06}.jpg"} for i in REFERENCES]
        rows = [{"image_id": int(i), "id": n, "caption": c} for n, (i, c) in enumerate(pairs)]
        path.write_text(json.dumps({"images": images, "annotations": rows}), encoding="utf-8")
    elif kind == "map.json":
        path.write_text(json.dumps(REFERENCES), encoding="utf-8")
    elif kind == "jsonl":
        rows = [{"image_id": i, "captions": c} for i, c in REFERENCES.items()]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif kind == "csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["image_id", "caption"], *pairs])
    elif kind == "cells.csv":
        cells = [(i, json.dumps(captions)) for i, captions in REFERENCES.items()]
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["id", "references"], *cells])
    return path


@pytest.mark.parametrize("references", ["json", "map.json", "jsonl", "csv", "cells.csv"])
@pytest.mark.parametrize("predictions", ["json", "jsonl", "run.jsonl", "csv", "tsv"])
def test_every_pair_of_kinds_gives_the_same(tmp_path, predictions, references):
    result = score_files(
        write_predictions(tmp_path, predictions),
        write_references(tmp_path, references),
        ["wer", "bleu"],
    )
    assert result.scores.corpus == EXPECTED
    assert result.image_ids == list(PREDICTIONS)
    assert result.unscored == 0


def test_references_in_the_file_itself(tmp_path):
    result = score_files(write_predictions(tmp_path, "run.jsonl"), metrics=["wer", "bleu"])
    assert result.scores.corpus == EXPECTED
    with pytest.raises(DataError, match="holds no references"):
        score_files(write_predictions(tmp_path, "jsonl"))


def test_images_named_by_file(tmp_path):
    path = tmp_path / "captions.jsonl"
    rows = [
        {"image": f"photos/COCO_val_{int(i):06}.jpg", "caption": c} for i, c in PREDICTIONS.items()
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    result = score_files(path, write_references(tmp_path, "json"), ["wer", "bleu"])
    assert result.scores.corpus == EXPECTED


def test_files_of_the_same_name_in_two_folders(tmp_path):
    images = [{"id": 1, "file_name": "cats/1.jpg"}, {"id": 2, "file_name": "dogs/1.jpg"}]
    texts = {1: "a cat on a mat", 2: "two dogs in the snow"}
    annotations = [{"image_id": i, "caption": text} for i, text in texts.items()]
    references, predictions = tmp_path / "r.json", tmp_path / "p.jsonl"
    references.write_text(json.dumps({"images": images, "annotations": annotations}))
    for image in images:
        row = {"image": image["file_name"], "caption": texts[image["id"]]}
        predictions.write_text(json.dumps(row))
        assert score_files(predictions, references, ["wer"]).scores.corpus["wer"] == 0
    predictions.write_text(json.dumps({"image": "photos/1.jpg", "caption": "a cat"}))
    with pytest.raises(DataError, match=r"'photos/1.jpg' may be any of 2 images .*\(1, 2\)"):
        score_files(predictions, references, ["wer"])


def test_lines_are_matched_by_position(tmp_path):
    (tmp_path / "p.txt").write_text("a dog\r\n\r\ntwo\u2028cats\r\n", encoding="utf-8")
    (tmp_path / "r.txt").write_text("a dog\na boat\ntwo cats\n", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"1 of 3 predictions are empty \(pairs 1\)"):
        result = score_files(tmp_path / "p.txt", tmp_path / "r.txt", ["wer"])
    assert result.scores.per_image == {"wer": [0.0, 1.0, 0.0]}


def test_fewer_predictions_than_references_are_said(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([{"image_id": 139, "caption": "a dog"}]), encoding="utf-8")
    result = score_files(path, write_references(tmp_path, "json"), ["wer"])
    assert (result.image_ids, result.unscored) == (["139"], 2)
    assert "1 images; 2 more have references but no prediction" in result.table()


def test_outputs(tmp_path):
    result = score_files(
        write_predictions(tmp_path, "json"), write_references(tmp_path, "json"), ["wer", "bleu"]
    )
    assert f"bleu4  {EXPECTED['bleu4']:.6g}" in result.table()
    result.write_json(tmp_path / "scores.json")
    written = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert written == {"metrics": EXPECTED, "images": 3, "unscored": 0}
    result.write_csv(tmp_path / "scores.csv")
    with open(tmp_path / "scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prediction"] for row in rows] == list(PREDICTIONS.values())
    assert [float(row["wer"]) for row in rows] == result.scores.per_image["wer"]
    with pytest.raises(OutputError, match="Cannot write"):
        result.write_json(tmp_path / "nowhere" / "scores.json")


def test_document_frequencies_reach_cider(tmp_path):
    table = DocumentFrequencies.from_references([*REFERENCES.values(), ["a cup"], ["a tree"]])
    path = table.save(tmp_path / "df.npz")
    files = (write_predictions(tmp_path, "json"), write_references(tmp_path, "json"))
    own = score_files(*files, ["cider", "wer"]).scores.corpus
    larger = score_files(*files, ["cider", "wer"], document_frequencies=path).scores.corpus
    assert own["wer"] == larger["wer"]
    assert own["cider"] != larger["cider"] > 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.xml", "<a/>", r"none of the kinds that can be read: \.json"),
        ("p.json", "{", "is not valid JSON"),
        ("p.json", "5", "should hold a list of results"),
        ("p.json", "[]", "no captions in"),
        ("p.json", "[5]", "Row 1 of .* should be an object"),
        ("p.json", '[{"image_id": 1}]', "Row 1 of .* has no caption: expected .*found image_id"),
        ("p.json", '[{"image_id": 1, "caption": 5}]', "should be text or a list of texts, found 5"),
        ("p.json", '[{"image_id": 1, "caption": "a"}, {"caption": "b"}]', "Row 2 .* which image"),
        (
            "p.json",
            '[{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]',
            "has 2 captions of the image '1'",
        ),
        ("p.json", '[{"image_id": 7, "caption": "a"}]', "1 of the 1 images.*no references.*: 7"),
        ("p.jsonl", '{"image_id": 139, "caption": "a"}\n{oops', "Line 2 of .* is not valid JSON"),
        ("p.jsonl", '{"caption": "a"}', "names its images and .* does not"),
        ("p.csv", "", "no captions in"),
        ("p.csv", "image_id,sth\n139,a\n", "Row 1 of .* has no caption"),
        (
            "p.csv",
            "image_id,caption\n139,a dog, on grass\n",
            "line 2: 3 fields, but the header has 2",
        ),
        ("p.csv", 'image_id,caption\n139,"a dog\n285,a cat\n', "line 3: not valid csv"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        score_files(path, write_references(tmp_path, "json"))


def test_files_that_cannot_be_read(tmp_path):
    truth = write_references(tmp_path, "json")
    with pytest.raises(DataError, match="There is no file"):
        score_files(tmp_path / "nothing.json", truth)
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="not text in UTF-8"):
        score_files(tmp_path / "binary.jsonl", truth)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match="Cannot read"):
        score_files(tmp_path / "folder.json", truth)


def test_different_numbers_of_lines(tmp_path):
    (tmp_path / "p.txt").write_text("a\nb\n", encoding="utf-8")
    (tmp_path / "r.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"has 2 captions and .* 1; without image ids"):
        score_files(tmp_path / "p.txt", tmp_path / "r.txt")


def test_an_image_without_any_reference_text(tmp_path):
    (tmp_path / "r.json").write_text('{"1": []}', encoding="utf-8")
    (tmp_path / "p.json").write_text('{"1": "a dog"}', encoding="utf-8")
    with pytest.raises(MetricError, match="Pair 0 has no reference"):
        score_files(tmp_path / "p.json", tmp_path / "r.json")


@pytest.mark.acceptance
def test_coco_annotations(shared_data, tmp_path):
    truth = next((shared_data / "coco-mini").rglob("captions_val*.json"))
    rows = json.loads(truth.read_text(encoding="utf-8"))["annotations"]
    first = {row["image_id"]: row["caption"] for row in reversed(rows)}
    results = [{"image_id": i, "caption": c} for i, c in first.items()]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    scores = score_files(path, truth, ["wer", "bleu", "cider"]).scores
    assert scores.corpus["wer"] == 0.0
    assert scores.corpus["bleu4"] == pytest.approx(1)
    assert len(scores.per_image["cider"]) == len(first)
