import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers import AutoImageProcessor

from captionkit.data.preprocess import Preprocessor
from captionkit.errors import CheckpointError, ImageError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
RNG = np.random.default_rng(0)


def hw(height: int, width: int) -> dict[str, int]:
    return {"height": height, "width": width}


# what a checkpoint's file may say, over the defaults of its type
SETTINGS = [
    ("CLIPImageProcessor", {}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": hw(31, 24)}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 30}, "crop_size": hw(45, 38)}),
    ("CLIPImageProcessor", {"size": hw(33, 40), "crop_size": 32}),
    ("CLIPImageProcessor", {"size": hw(33, 40), "do_center_crop": False}),
    ("CLIPImageProcessor", {"resample": 2, "image_mean": [0.1, 0.2, 0.3], "do_rescale": False}),
    ("CLIPImageProcessor", {"do_resize": False, "crop_size": hw(50, 61)}),
    ("CLIPImageProcessor", {"do_normalize": False, "rescale_factor": 1 / 127.5}),
    ("ViTImageProcessor", {}),
    ("ViTImageProcessor", {"size": hw(31, 48), "resample": 3}),
    ("ViTImageProcessor", {"size": hw(40, 40), "resample": 0}),
    ("DeiTImageProcessor", {}),
    ("DeiTImageProcessor", {"size": hw(50, 41), "crop_size": hw(30, 45)}),
    ("BlipImageProcessor", {}),
    ("BlipImageProcessor", {"size": hw(64, 48)}),
    ("SiglipImageProcessor", {}),
    ("BeitImageProcessor", {}),
    ("BeitImageProcessor", {"size": hw(64, 64), "do_center_crop": True, "crop_size": hw(48, 48)}),
    ("BitImageProcessor", {"size": {"shortest_edge": 256}, "image_mean": [0.485, 0.456, 0.406]}),
]  # fmt: skip
SIZES = [(640, 480), (427, 640), (225, 224), (224, 224), (1, 1), (17, 33), (33, 17), (300, 31)]


def hf(name: str, settings: dict):
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return kind(**settings)


def picture(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def assert_equal(ours: Preprocessor, theirs, image: Image.Image) -> None:
    pixels = ours(image)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (ours.height, ours.width, 3)
    # said, since 4.57 takes a picture of one row for a channel
    options = {"return_tensors": "np", "input_data_format": "channels_last"}
    raw = theirs(image, do_rescale=False, do_normalize=False, **options)
    np.testing.assert_array_equal(pixels, raw["pixel_values"][0].transpose(1, 2, 0))

    whole = theirs(image, **options)["pixel_values"][0].transpose(1, 2, 0)
    scaled = (pixels * ours.scale - np.array(ours.mean)) / np.array(ours.std)
    np.testing.assert_allclose(scaled, whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours.pixel_values(pixels), whole.transpose(2, 0, 1))


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_pixels_equal_those_of_transformers(tmp_path, kind, settings):
    theirs = hf(kind, settings)
    theirs.save_pretrained(tmp_path)
    ours = Preprocessor.from_checkpoint(tmp_path)
    assert ours.type == kind
    for size in SIZES:
        assert_equal(ours, theirs, picture(size))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": {"shortest_edge": 400}},
        {"size": {"shortest_edge": 64}},
        {"size": {"shortest_edge": 50}, "crop_pct": 0.9, "resample": 2},
    ],
)
def test_convnext_squeezes_large_images_and_crops_small_ones(tmp_path, settings):
    theirs = hf("ConvNextImageProcessor", settings)
    theirs.save_pretrained(tmp_path)
    ours = Preprocessor.from_checkpoint(tmp_path)
    ours.save(tmp_path)
    assert Preprocessor.from_checkpoint(tmp_path) == ours
    again = AutoImageProcessor.from_pretrained(tmp_path)
    for size in SIZES[:2] + SIZES[5:7]:
        assert_equal(ours, theirs, picture(size))
        assert_equal(ours, again, picture(size))


def test_pixel_values_of_many_at_once():
    ours = Preprocessor.square(12, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    pixels = RNG.integers(0, 256, (2, 3, 12, 12, 3), dtype=np.uint8)
    together = ours.pixel_values(pixels)
    assert (together.shape, together.dtype) == ((2, 3, 3, 12, 12), np.float32)
    np.testing.assert_array_equal(together[1, 2], ours.pixel_values(pixels[1, 2]))


# the BEiT of transformers 4 knows no do_convert_rgb
@pytest.mark.filterwarnings("ignore:The following named arguments are not valid")
@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_what_is_saved_is_read_back_and_by_transformers(tmp_path, kind, settings):
    hf(kind, settings).save_pretrained(tmp_path)
    ours = Preprocessor.from_checkpoint(tmp_path)
    again = tmp_path / "again"
    again.mkdir()
    ours.save(again)
    assert Preprocessor.from_checkpoint(again) == ours
    theirs = AutoImageProcessor.from_pretrained(again)
    for size in SIZES[:3]:
        assert_equal(ours, theirs, picture(size))


@pytest.mark.parametrize(
    ("file", "kind", "settings"),
    [
        # as files of transformers 4.2 to 4.24 have them: plain numbers and feature extractors
        (
            {"feature_extractor_type": "ViTFeatureExtractor", "size": 48, "resample": 2},
            "ViTImageProcessor",
            {"size": {"height": 48, "width": 48}},
        ),
        (
            {"feature_extractor_type": "CLIPFeatureExtractor", "size": 48, "crop_size": 40},
            "CLIPImageProcessor",
            {"size": {"shortest_edge": 48}, "crop_size": {"height": 40, "width": 40}},
        ),
        (
            {"feature_extractor_type": "DeiTFeatureExtractor", "size": 48, "crop_size": 40},
            "DeiTImageProcessor",
            {"size": {"height": 48, "width": 48}, "crop_size": {"height": 40, "width": 40}},
        ),
        (
            {"image_processor_type": "BlipImageProcessor", "size": [40, 48]},
            "BlipImageProcessor",
            {"size": {"height": 40, "width": 48}},
        ),
        # nulls, the names of other classes of the same processor, and settings of no effect
        (
            {"image_processor_type": "ViTImageProcessorFast", "do_convert_rgb": None,
             "size": {"height": 32, "width": 32}, "crop_size": None, "do_center_crop": None,
             "do_pad": None, "pad_size": None, "data_format": "channels_first", "device": None},
            "ViTImageProcessor",
            {"size": {"height": 32, "width": 32}},
        ),
        (
            {"image_processor_type": "CLIPImageProcessorPil", "image_mean": 0.5, "image_std": 0.25},
            "CLIPImageProcessor",
            {"image_mean": [0.5] * 3, "image_std": [0.25] * 3},
        ),
    ],
)  # fmt: skip
def test_other_forms_of_the_file(tmp_path, file, kind, settings):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(file))
    ours = Preprocessor.from_checkpoint(tmp_path)
    for size in SIZES[:3]:
        assert_equal(ours, hf(kind, settings), picture(size))


def test_the_nested_file_of_transformers_5_goes_first(tmp_path):
    hf("ViTImageProcessor", {}).save_pretrained(tmp_path)
    nested = {"image_processor": hf("BlipImageProcessor", {}).to_dict(), "processor_class": "X"}
    file = tmp_path / "processor_config.json"
    file.write_text(json.dumps(nested, default=str))
    assert Preprocessor.from_checkpoint(tmp_path).type == "BlipImageProcessor"
    (tmp_path / "preprocessor_config.json").unlink()
    assert Preprocessor.from_checkpoint(tmp_path).height == 384
    # one that transformers 4 wrote holds no image processor
    file.write_text(json.dumps({"processor_class": "GitProcessor"}))
    hf("CLIPImageProcessor", {}).save_pretrained(tmp_path)
    assert Preprocessor.from_checkpoint(tmp_path).type == "CLIPImageProcessor"


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "git", "vision_config": {}}, "CLIPImageProcessor"),
        ({"model_type": "vit"}, "ViTImageProcessor"),
        (
            {"model_type": "vision-encoder-decoder", "encoder": {"model_type": "deit"}},
            "DeiTImageProcessor",
        ),
    ],
)
def test_a_file_without_a_type_goes_by_the_model(tmp_path, config, kind):
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text('{"size": 224}')
    assert Preprocessor.from_checkpoint(tmp_path).type == kind


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_pad": True}, "do_pad=True"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"pad_size": hw(9, 9)}, "pad_size"),
        ({"use_square_size": True}, "use_square_size"),
        ({"do_center_crop": False}, "make no batch"),
        ({"size": {"longest_edge": 9}}, "size"),
        ({"size": {"shortest_edge": 9, "longest_edge": 20}}, "size"),
        ({"size": "big"}, "size"),
        ({"size": 0}, "size"),
        ({"size": True}, "size"),
        ({"crop_size": [-3, 4]}, "size"),
        ({"resample": 9}, "resample"),
        ({"resample": "bicubic"}, "resample"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_std": ["a", "b", "c"]}, "image_std"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std"),
        ({"rescale_factor": "x"}, "rescale_factor"),
        ({"image_processor_type": "Pix2StructImageProcessor"}, "Pix2StructImageProcessor"),
        ({"image_processor_type": None}, "no type"),
    ],
)
def test_what_would_change_the_pixels_is_refused(tmp_path, settings, message):
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", **settings}))
    with pytest.raises(CheckpointError, match=message) as error:
        Preprocessor.from_checkpoint(tmp_path)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\xff"])
def test_a_damaged_file_is_named(tmp_path, content):
    file = tmp_path / "preprocessor_config.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        Preprocessor.from_checkpoint(tmp_path)


def test_no_file_at_all(tmp_path):
    with pytest.raises(CheckpointError, match="no image processor"):
        Preprocessor.from_checkpoint(tmp_path)


def test_square(tmp_path):
    ours = Preprocessor.square(48)
    ours.save(tmp_path)
    assert Preprocessor.from_checkpoint(tmp_path) == ours
    assert (ours.height, ours.width, ours.mean, ours.std) == (48, 48, (0.5,) * 3, (0.5,) * 3)
    assert_equal(ours, AutoImageProcessor.from_pretrained(tmp_path), picture((70, 31)))
    other = Preprocessor.square(32, mean=[0.1, 0.2, 0.3], std=(1, 2, 3))
    assert (other.mean, other.std) == ((0.1, 0.2, 0.3), (1, 2, 3))


def test_a_picture_that_is_not_rgb_yet():
    grey = Image.effect_noise((20, 30), 80)
    np.testing.assert_array_equal(
        Preprocessor.square(16)(grey), Preprocessor.square(16)(grey.convert("RGB"))
    )


def test_a_sliver_is_refused_instead_of_filling_the_memory(tmp_path):
    hf("CLIPImageProcessor", {}).save_pretrained(tmp_path)
    with pytest.raises(ImageError, match="20000 pixels is too narrow"):
        Preprocessor.from_checkpoint(tmp_path)(Image.new("RGB", (1, 20_000)))


def test_the_arrays_can_be_written_to():
    assert Preprocessor.square(8)(Image.new("RGB", (8, 8))).flags.writeable


@pytest.mark.acceptance
@pytest.mark.parametrize("kind", ["CLIP", "ViT", "DeiT", "Blip"])
def test_photos(tmp_path, kind):
    photos = sorted((SHARED / "coco-mini" / "val2017").glob("*.jpg"))[:12]
    if not photos:
        pytest.skip("../shared/data/coco-mini is not there")
    theirs = hf(f"{kind}ImageProcessor", {})
    theirs.save_pretrained(tmp_path)
    ours = Preprocessor.from_checkpoint(tmp_path)
    for photo in photos:
        assert_equal(ours, theirs, Image.open(photo).convert("RGB"))


@pytest.mark.acceptance
def test_the_file_of_a_real_checkpoint():
    folder = SHARED / "tokenizers" / "vit-base-patch16-224-in21k"
    if not folder.exists():
        pytest.skip("../shared/data/tokenizers is not there")
    ours = Preprocessor.from_checkpoint(folder)
    assert_equal(ours, AutoImageProcessor.from_pretrained(folder), picture((640, 427)))
