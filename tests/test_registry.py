"""Plugins, with real distributions: wheels that pip installs into an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from captionkit import registry
from captionkit.errors import ConfigError, NotInstalledError

PLUGIN = '''
"""A backend, a dataset and a metric of somebody else's."""
from captionkit.data.dataset import CaptionDataset
from captionkit.types import Scores


class EchoBackend:
    """Says the file name."""

    name = "echo"
    model_types = frozenset({"echo", "git"})
    options_type = None

    def missing(self):
        return None


def load_greys(config, split):
    """Grey squares."""
    return CaptionDataset.from_pairs([("a.png", "a grey square")], "greys")


class Letters:
    """The number of letters."""

    keys = ("letters",)
    higher_is_better = True

    def __init__(self):
        self.counts = []

    def update(self, prediction, references):
        self.counts.append(float(len(prediction)))

    def compute(self):
        return Scores({"letters": sum(self.counts)}, {"letters": self.counts})
'''
ENTRY_POINTS = """
[captionkit.backends]
echo = {module}:EchoBackend
[captionkit.datasets]
greys = {module}:load_greys
[captionkit.metrics]
letters = {module}:Letters
"""


def install(site: Path, distribution: str, source: str, entry_points: str) -> None:
    """Build a wheel and have pip install it, offline."""
    module = distribution.replace("-", "_")
    wheel = site.parent / f"{module}-1.0-py3-none-any.whl"
    info = f"{module}-1.0.dist-info"
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": entry_points.format(module=module),
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run(
        [*command, "--disable-pip-version-check", "--target", site, wheel],
        check=True, capture_output=True,
    )  # fmt: skip


def run(site: Path, code: str) -> tuple[list, str]:
    """Run code with the plugins installed; what it appends to `out`, and its warnings."""
    script = f"import json\nout = []\n{code}\nprint(json.dumps(out))"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


def test_a_third_distribution_adds_a_backend_a_dataset_and_a_metric(tmp_path):
    site = tmp_path / "site"
    install(site, "captionkit-echo", PLUGIN, ENTRY_POINTS)
    out, _ = run(
        site,
        """
import captionkit
from captionkit import registry
out += [[b.name, b.distribution, b.state] for b in captionkit.list_backends() if b.name == "echo"]
out += [[d.name, d.summary] for d in captionkit.list_datasets() if d.name == "greys"]
out.append(captionkit.score(["abc", "de"], ["x", "y"], metrics=["letters"]))
out.append(captionkit.load_dataset("greys", test_size=0)[0].captions[0])
out.append(registry.backend_for("echo").name)
out.append(registry.backend_for("git", preferred="echo").name)
""",
    )
    assert out == [
        ["echo", "captionkit-echo", "ready"],
        ["greys", "Grey squares."],
        {"letters": 5.0},
        "a grey square",
        "echo",
        "echo",
    ]


def test_a_broken_plugin_warns_once_and_breaks_nothing(tmp_path):
    site = tmp_path / "site"
    install(site, "captionkit-broken", "import not_there_at_all\n", ENTRY_POINTS)
    out, warnings = run(
        site,
        """
import captionkit
states = {m.name: m.state for m in captionkit.list_metrics()}
captionkit.list_metrics()
out += [states["letters"], states["wer"]]
out.append(captionkit.score(["a b"], ["a b"], metrics=["wer"]))
try:
    captionkit.score(["a"], ["b"], metrics=["letters"])
except captionkit.CaptionkitError as error:
    out.append(str(error))
""",
    )
    assert out[:3] == ["broken", "ready", {"wer": 0.0}]
    assert "captionkit-broken" in out[3]
    assert "not_there_at_all" in out[3]
    assert warnings.count("captionkit-broken") == 1


def test_two_distributions_with_one_name_are_both_named(tmp_path):
    site = tmp_path / "site"
    install(site, "captionkit-echo", PLUGIN, ENTRY_POINTS)
    install(site, "captionkit-parrot", PLUGIN, ENTRY_POINTS)
    out, _ = run(
        site,
        """
import captionkit
from captionkit import registry
try:
    registry.get_metric("letters")
except captionkit.CaptionkitError as error:
    out += [type(error).__name__, str(error)]
out.append(captionkit.score(["a"], ["a"], metrics=["wer"])["wer"])
""",
    )
    assert out[0] == "PluginError"
    assert "captionkit-echo and captionkit-parrot" in out[1]
    assert out[2] == 0.0


def test_unknown_names_get_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'critters'"):
        registry.get_dataset("criters")
    with pytest.raises(ConfigError, match="Registered: "):
        registry.get_backend("tensorflow")


def test_a_known_backend_that_is_not_installed_names_the_command(monkeypatch):
    monkeypatch.setattr(registry, "_discover", lambda kind: {})
    registry._load.cache_clear()
    with pytest.raises(NotInstalledError, match=r"pip install \"captionkit\[flax\]\""):
        registry.get_backend("flax")


def test_models_that_nothing_runs_are_explained():
    with pytest.raises(ConfigError, match=r"type 'gti'; did you mean 'git'\?.*Supported: "):
        registry.backend_for("gti")


def test_directions_of_metrics_are_known_before_a_run():
    assert registry.check_metrics(("wer", "rouge")) is False
    assert registry.check_metrics(("wer", "rouge"), "rougeL") is True
    assert registry.check_metrics(("wer", "rouge"), "wer") is False
    with pytest.raises(
        ConfigError, match=r"best_metric='rouge9'; did you mean|best_metric='rouge9'"
    ):
        registry.check_metrics(("wer", "rouge"), "rouge9")
