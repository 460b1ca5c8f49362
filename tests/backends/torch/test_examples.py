"""The example scripts, on small data in the schema of the real ones."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_finetune_git_pokemon_runs_on_a_local_folder(pairs, git_folder, tmp_path, capsys):
    data = tmp_path / "pokemon"
    data.mkdir()
    lines = []
    for i, (image, texts) in enumerate(pairs * 2):
        image.save(data / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": texts[0]}))
    (data / "metadata.jsonl").write_text("\n".join(lines))
    result = load_script("finetune_git_pokemon").main(
        ["--model", str(git_folder), "--data-dir", str(data), "--epochs", "2", "--batch-size", "8",
         "--output-dir", str(tmp_path / "run")]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "28 images to train on, 4 to validate on" in printed
    assert f"word error rate of generated captions: {result.metrics['wer']:.3f}" in printed
    assert (result.output_dir / "captionkit" / "samples.png").is_file()
