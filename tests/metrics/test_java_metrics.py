"""METEOR and SPICE: against stand-ins for their programs, METEOR also against the COCO wrapper."""

import os
import shutil
import stat
import sys
import textwrap
from pathlib import Path

import pytest

from captionkit.errors import MetricError, NotInstalledError
from captionkit.metrics.meteor import Meteor
from captionkit.metrics.meteor_nltk import MeteorNltk
from captionkit.metrics.ptb import ptb_tokenize
from captionkit.metrics.spice import Spice

# Speaks METEOR's protocol; a pair scores the share of the caption's words in its first reference.
METEOR = """
import sys
assert sys.argv[-4:] == ["-stdio", "-l", "en", "-norm"], sys.argv
for line in sys.stdin:
    kind, *fields = line.rstrip("\\n").split(" ||| ")
    if kind == "SCORE":
        words = fields[-1].split()
        print(sum(w in fields[0].split() for w in words), len(words), flush=True)
    else:
        pairs = [tuple(map(float, f.split())) for f in fields]
        for a, b in pairs:
            print(a / b)
        print(sum(a for a, _ in pairs) / sum(b for _, b in pairs), flush=True)
"""
# Reads and writes SPICE's files; a pair scores whether caption and first reference are equal.
SPICE = """
import json, sys
arguments = sys.argv[sys.argv.index("-jar") + 2:]
pairs = json.load(open(arguments[0]))
assert "-subset" in arguments and "-silent" in arguments
rows = [
    {"image_id": p["image_id"], "scores": {"All": {"f": float(p["test"] == p["refs"][0]) or None}}}
    for p in reversed(pairs)
]
json.dump(rows, open(arguments[arguments.index("-out") + 1], "w"))
"""
FAILS = """
import sys
sys.stderr.write("Exception in main\\n at x\\nCaused by: java.lang.NoModel: no model\\n ...")
sys.exit(3)
"""


@pytest.fixture
def java(tmp_path, monkeypatch):
    """Put a program called java on the PATH, written in Python."""

    def install(program: str) -> Path:
        script = tmp_path / "bin" / "java"
        script.parent.mkdir()
        script.write_text(f"#!{sys.executable}\n{textwrap.dedent(program)}")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
        jar = tmp_path / "metric.jar"
        jar.touch()
        return jar

    if os.name == "nt":
        pytest.skip("needs a shebang line")
    return install


def computed(metric, pairs):
    for prediction, references in pairs:
        metric.update(prediction, references)
    return metric.compute()


PAIRS = [("A dog.", ["a dog!", "cat"]), ("two ||| cats", ["two dogs"]), ("It's", ["it is"])]


def test_meteor_speaks_the_protocol(java, monkeypatch):
    monkeypatch.setenv("CAPTIONKIT_METEOR_JAR", str(java(METEOR)))
    assert Meteor.missing() is None
    scores = computed(Meteor(), PAIRS)
    assert scores.per_image == {"meteor": [1.0, 1 / 5, 1 / 2]}
    assert scores.corpus == {"meteor": 4 / 9}
    assert Meteor().compute().corpus == {"meteor": 0.0}


def test_spice_exchanges_files(java):
    scores = computed(Spice(jar=java(SPICE)), PAIRS)
    assert scores.per_image == {"spice": [1.0, 0.0, 0.0]}
    assert scores.corpus == {"spice": pytest.approx(1 / 3)}
    assert Spice(jar=shutil.which("java")).compute().corpus == {"spice": 0.0}


@pytest.mark.parametrize("metric", [Meteor, Spice])
def test_a_program_that_fails_is_quoted(java, metric):
    with pytest.raises(MetricError, match=r"failed on 3 pairs.*Caused by: java.lang.NoModel"):
        computed(metric(jar=java(FAILS)), PAIRS)


@pytest.mark.parametrize(("metric", "name"), [(Meteor, "METEOR"), (Spice, "SPICE")])
def test_what_is_missing_is_named(java, metric, name, monkeypatch, tmp_path):
    monkeypatch.delenv(f"CAPTIONKIT_{name}_JAR", raising=False)
    with pytest.raises(NotInstalledError, match=f"CAPTIONKIT_{name}_JAR"):
        metric()
    with pytest.raises(NotInstalledError, match="There is no file"):
        metric(jar=tmp_path / "none.jar")
    jar = java(FAILS)
    assert f"CAPTIONKIT_{name}_JAR" in metric.missing()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert "Java" in metric.missing()
    with pytest.raises(NotInstalledError, match="no java on the PATH"):
        metric(jar=jar)


def plain_text(text):
    return ptb_tokenize(text.replace("'", ""))


@pytest.mark.oracle
def test_meteor_equals_the_coco_wrapper(captions):
    package = pytest.importorskip("pycocoevalcap.meteor.meteor")
    if shutil.which("java") is None:
        pytest.skip("there is no Java runtime")
    plain = [(plain_text(p), [plain_text(r) for r in refs]) for p, refs in captions[:10]]
    plain += [("a dog", ["a puppy", "the dog"]), ("", ["a dog"]), ("a dog", [""])]
    ours = computed(Meteor(jar=Path(package.__file__).parent / package.METEOR_JAR), plain)
    truth = {i: refs for i, (_, refs) in enumerate(plain)}
    coco = package.Meteor()
    corpus, per_image = coco.compute_score(truth, {i: [p] for i, (p, _) in enumerate(plain)})
    for pipe in (coco.meteor_p.stdout, coco.meteor_p.stderr):
        pipe.close()
    assert ours.corpus == {"meteor": corpus}
    assert ours.per_image == {"meteor": per_image}


class WordNetOfOne:
    """What nltk's METEOR asks of WordNet; cab and taxi are synonyms."""

    def synsets(self, word):
        class Lemma:
            def __init__(self, name):
                self._name = name

            def name(self):
                return self._name

        class Synset:
            def lemmas(self):
                return [Lemma("cab"), Lemma("taxi")]

        return [Synset()] if word in ("cab", "taxi") else []


def test_meteor_nltk_takes_the_best_reference():
    pairs = [("A yellow taxi runs.", ["a dog", "a yellow cab ran"]), ("", ["a"]), ("a", ["a"])]
    scores = computed(MeteorNltk(WordNetOfOne()), pairs)
    # Banerjee and Lavie by hand: three of four words match in one chunk, then F x (1 - penalty)
    f_mean = 10 * 0.75 * 0.75 / (0.75 + 9 * 0.75)
    assert scores.per_image["meteor_nltk"][0] == pytest.approx(f_mean * (1 - 0.5 * (1 / 3) ** 3))
    assert scores.per_image["meteor_nltk"][1:] == [0.0, 0.5]


def test_meteor_nltk_says_how_to_get_wordnet(monkeypatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(NotInstalledError, match=r"nltk\.downloader wordnet"):
        MeteorNltk()
