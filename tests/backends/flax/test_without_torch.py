"""Training, captioning and resuming on a machine that has no torch."""

from __future__ import annotations

import subprocess
import sys
import textwrap

SCRIPT = """
    import importlib.abc, sys

    absent = ("torch", "torchvision", "accelerate")

    class NoTorch(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in absent:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, NoTorch())
    import importlib.util
    found = importlib.util.find_spec
    def find_spec(name, package=None):
        return None if name.split(".")[0] in absent else found(name, package)
    importlib.util.find_spec = find_spec

    import numpy as np
    from PIL import Image
    import captionkit

    folder, home = sys.argv[1:]
    pairs = [(Image.fromarray(np.full((32, 32, 3), 20 * i, np.uint8)), "grey") for i in range(8)]
    result = captionkit.finetune(model=folder, dataset=pairs, output_dir=home, max_steps=2,
                                 batch_size=4, max_new_tokens=4)
    assert captionkit.load(home).caption(pairs[0][0])[0].text is not None
    assert "torch" not in sys.modules
    print("backend", captionkit.Recipe.from_file(home + "/captionkit/recipe.yaml").backend)
"""


def test_a_run_needs_no_torch(ved_folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(ved_folder), str(tmp_path / "run")],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "backend flax"
