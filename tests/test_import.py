"""What `import captionkit` and the quick commands load: nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FRAMEWORKS = ("torch", "jax", "jaxlib", "flax", "optax", "transformers", "datasets", "evaluate")
HEAVY = (*FRAMEWORKS, "numpy", "tokenizers", "PIL", "tyro", "matplotlib", "pyarrow", "pandas")


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys, json\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_import_loads_nothing_heavy():
    assert not modules_after("import captionkit") & set(HEAVY)


def test_public_names_are_listed_without_being_loaded():
    code = "import captionkit; assert 'finetune' in dir(captionkit) and 'load' in dir(captionkit)"
    assert not modules_after(code) & set(HEAVY)


@pytest.mark.parametrize(
    "command", [["--help"], ["backends"], ["datasets"], ["recipes"], ["--version"]]
)
def test_quick_commands_start_no_framework(command):
    code = f"from captionkit.cli import main; assert main({command!r}) == 0"
    assert not modules_after(code) & set(FRAMEWORKS)


@pytest.mark.parametrize("command", ["finetune", "caption", "evaluate", "doctor"])
def test_help_starts_no_framework(command):
    code = (
        "from captionkit.cli import main\n"
        f"try: main([{command!r}, '--help'])\nexcept SystemExit as e: assert e.code == 0"
    )
    assert not modules_after(code) & set(FRAMEWORKS)


def test_every_public_name_exists():
    import captionkit

    for name in ("Recipe", "Example", "Caption", "CaptionkitError", "list_backends"):
        assert getattr(captionkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'finetun'"):
        captionkit.finetun  # noqa: B018 (the attribute access is the test)


def test_core_modules_import_no_framework():
    """All of core, imported module by module; backends are reached through the registry only."""
    from pathlib import Path

    import captionkit

    root = Path(captionkit.__file__).parent
    names = [
        ".".join(("captionkit", *path.relative_to(root).with_suffix("").parts))
        for path in root.rglob("*.py")
        if not {"backends", "cli"} & set(path.parts)
        and path.name not in ("__init__.py", "__main__.py")
    ]
    assert len(names) > 15
    code = "import importlib\nfor name in " + repr(names) + ": importlib.import_module(name)"
    assert not modules_after(code) & set(FRAMEWORKS)
