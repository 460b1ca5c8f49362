"""Everything that is run on captionkit, each in an environment of its own.

`nox -s demo` shows what it does, `nox -s tests` says whether it works.
"""

from __future__ import annotations

import json
import os
import shutil
from itertools import chain
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "virtualenv"

QUICK = "not acceptance and not long and not oracle and not browser"  # these have own sessions
# programs of tests run for less time than they compile, and many tests compile the same ones
QUICK_XLA = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 "
    "--xla_cpu_use_fusion_emitters=false",
    "JAX_COMPILATION_CACHE_DIR": str(Path(".nox/compiled").resolve()),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
# old libraries call what their own dependencies have deprecated since
OLD = ("-W", "ignore::DeprecationWarning")
SHARED = Path(__file__).parent.parent / "shared" / "data"


def install(session: nox.Session, *extras: str) -> None:
    """Install captionkit with extras, in the versions it was tested with."""
    wanted = f".[{','.join(extras)}]" if extras else "."
    # a session imports a part of what pip would compile; a benchmark should not meet that part
    quick = [] if "bench" in extras else ["--no-compile"]
    session.install(*quick, "-c", "constraints.txt", "-e", wanted)


def pytest(session: nox.Session, *arguments: str, **env: str) -> None:
    """Run tests, without the network."""
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    quiet["PYTHONDONTWRITEBYTECODE"] = ""  # what was compiled once is kept, whatever the caller set
    session.run("pytest", *arguments, *session.posargs, env={**quiet, **env})


def pytest_by_two(session: nox.Session, *arguments: str, **env: str) -> None:
    """The same in two processes, a file (or class) in one of them: its fixtures are made once."""
    split = ("-n", "2", "--dist", "loadscope")
    pytest(session, *split, *arguments, OMP_NUM_THREADS="1", **env)


@nox.session
def demo(session: nox.Session) -> None:
    """Fine-tune a small GIT on drawn critters and write a report, in a few minutes on a CPU."""
    install(session, "torch")
    session.run("captionkit", "finetune", "--recipe", "quickstart", *session.posargs)


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Lint, the tests of core and of each backend, and of a plugin."""
    for name in ("lint", "tests-core", "tests-torch", "tests-flax", "tests-both", "tests-plugin"):
        session.notify(name)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, import rules and types."""
    install(session, "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")


@nox.session(name="tests-core")
def tests_core(session: nox.Session) -> None:
    """All that knows no framework, with none installed."""
    install(session, "test")
    assert_absent(session, "torch", "jax")
    pytest_by_two(session, "tests", "--ignore", "tests/backends", "-m", QUICK)


@nox.session(name="tests-plugin")
def tests_plugin(session: nox.Session) -> None:
    """The plugin of examples/plugin, installed as somebody else's distribution."""
    install(session)
    session.install("--no-compile", "-c", "constraints.txt", "./examples/plugin[test]")
    assert_absent(session, "torch", "jax")
    session.run("captionkit", "backends")
    pytest(session, "examples/plugin/tests", OMP_NUM_THREADS="1")


@nox.session(name="tests-torch")
def tests_torch(session: nox.Session) -> None:
    """The torch backend, where there is no jax."""
    install(session, "torch", "test")
    assert_absent(session, "jax", "flax")
    paths = ("tests/backends/torch", "tests/reliability", "tests/test_import.py")
    pytest_by_two(session, *paths, "-m", QUICK)


@nox.session(name="tests-flax")
def tests_flax(session: nox.Session) -> None:
    """The Flax backend, where there is no torch."""
    install(session, "flax", "test")
    assert_absent(session, "torch")
    paths = (
        "tests/backends/flax", "tests/reliability", "tests/fuzz/test_fuzz_tensors.py",
        "tests/test_import.py",
    )  # fmt: skip
    pytest_by_two(session, *paths, "-m", QUICK, **QUICK_XLA)


@nox.session(name="tests-both")
def tests_both(session: nox.Session) -> None:
    """The backends beside each other: what Flax computes against what torch does."""
    install(session, "all", "test")
    files = Path("tests/backends").glob("test_*.py"), Path("tests/backends/flax").glob("test_*.py")
    needs_both = 'importorskip("torch")'
    parity = [str(path) for path in chain(*files) if needs_both in path.read_text("utf-8")]
    named = "tests/test_supported_models.py"
    pytest_by_two(session, named, *sorted(parity), "-m", QUICK, **QUICK_XLA)
    contracts = sorted(map(str, Path("tests/backends").glob("*/test_contract_*.py")))
    pytest_by_two(session, *contracts, "-k", "other_backends", **QUICK_XLA)


@nox.session
def package(session: nox.Session) -> None:
    """Wheel and sdist: built, checked, installed without the source tree, and put to work."""
    session.install("build", "twine")
    scratch = Path(session.create_tmp()).resolve()
    shutil.rmtree(scratch / "dist", ignore_errors=True)
    dist, work = scratch / "dist", scratch / "dist" / "work"
    work.mkdir(parents=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(dist / "first"), silent=True)
    session.run("python", "-m", "build", "--sdist", "--outdir", str(dist), silent=True)
    unpacked = dist / "unpacked"
    shutil.unpack_archive(next(dist.glob("*.tar.gz")), unpacked, filter="data")
    source = str(next(unpacked.iterdir()))
    second = str(dist / "second")
    session.run("python", "-m", "build", "--wheel", "--outdir", second, source, silent=True)
    found = [str(path) for path in (*dist.glob("*/*.whl"), *dist.glob("*.tar.gz"))]
    session.run("twine", "check", "--strict", *found)
    tests = Path("tests/packaging").resolve()
    session.run("python", str(tests / "contents.py"), str(dist))

    python = scratch / "fresh" / "bin" / "python"
    shutil.rmtree(scratch / "fresh", ignore_errors=True)
    session.run("python", "-m", "venv", str(scratch / "fresh"))
    pip = (str(python), "-m", "pip", "install", "-q", "--no-compile")
    versions = ("-c", str(Path("constraints.txt").resolve()))
    # what a run leaves behind is in its own folder, and the sources are in none of them
    env = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "CAPTIONKIT_CACHE": str(work / "cache")}
    for number, wheel in enumerate(sorted(dist.glob("*/*.whl"))):
        again = ("--force-reinstall", "--no-deps") if number else ()
        session.run(*pip, *versions, *again, str(wheel), external=True)
        with session.chdir(work):
            session.run(str(python), str(tests / "smoke.py"), env=env, external=True)


@nox.session
def acceptance(session: nox.Session) -> None:
    """Real photos, captions, vocabularies and scores; fails where they are missing."""
    if not SHARED.is_dir():
        session.error(f"the real data are not at {SHARED}")
    install(session, "all", "test")
    pytest_by_two(session, "-m", "acceptance", "tests", CAPTIONKIT_REQUIRE_DATA="1")


@nox.session
def long(session: nox.Session) -> None:
    """What takes minutes: photos learned by heart in Flax, and the widest comparisons."""
    install(session, "all", "test")
    pytest(session, "-m", "long", "tests/backends")


@nox.session
def reliability(session: nox.Session) -> None:
    """Each backend killed 20 times, and runs of 10,000 steps and 50,000 captions; an hour."""
    install(session, "all", "test")
    pytest(session, "tests/reliability", "-m", "long or not long", "-s", **QUICK_XLA)


@nox.session
def browser(session: nox.Session) -> None:
    """The report in headless Chromium; needs chromium and chromedriver."""
    install(session, "test")
    pytest(session, "-m", "browser", "tests/report")


@nox.session
def oracle(session: nox.Session) -> None:
    """Tokenisation and METEOR against the COCO evaluation's Java programs; needs a Java runtime."""
    install(session, "test")
    pytest(session, "-m", "oracle", "tests/metrics")


@nox.session(name="tests-legacy")
def tests_legacy(session: nox.Session) -> None:
    """Against the Flax classes that transformers removed in version 5."""
    session.install("-c", "constraints-legacy.txt", "-e", ".[flax,test]")
    pytest(session, "tests/legacy")


@nox.session(name="tests-oldest")
def tests_oldest(session: nox.Session) -> None:
    """The torch backend with the oldest transformers that pyproject admits."""
    session.install("-c", "constraints.txt", "torch", "numpy")
    session.install("-c", "constraints-oldest.txt", "-e", ".[torch,test]")
    pytest(session, "tests/backends/torch", "-m", QUICK)


@nox.session(name="tests-oldest-core")
def tests_oldest_core(session: nox.Session) -> None:
    """All that knows no framework, with the oldest versions that pyproject admits."""
    session.install("-c", "constraints-oldest-core.txt", "-e", ".[test]")
    assert_absent(session, "torch", "jax")
    pytest(session, "tests", "--ignore", "tests/backends", "-m", QUICK, *OLD)


@nox.session(name="tests-oldest-flax")
def tests_oldest_flax(session: nox.Session) -> None:
    """The Flax backend, with the oldest versions that pyproject admits."""
    session.install("-c", "constraints-oldest-flax.txt", "-e", ".[flax,test]")
    assert_absent(session, "torch")
    pytest(session, "tests/backends/flax", "-m", QUICK, *OLD, **QUICK_XLA)


@nox.session(name="tests-python", python=["3.12", "3.13"])
@nox.parametrize("part", ["core", "flax", "torch"])
def tests_python(session: nox.Session, part: str) -> None:
    """Core and each backend on the later Pythons: `nox -s "tests-python-3.13(part='core')"`."""
    install(session, "test", *([] if part == "core" else [part]))
    core = ("tests", "--ignore", "tests/backends")
    paths = core if part == "core" else (f"tests/backends/{part}",)
    pytest(session, *paths, "-m", QUICK, **QUICK_XLA)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Hostile inputs, 100,000 for each reader, in ten chunks; hours. See docs/security.md.

    What follows `--` goes to pytest, such as `-k yaml`; CHUNKS and EXAMPLES come from the
    environment. The figures go to fuzz.jsonl.
    """
    install(session, "flax", "test")
    examples = os.environ.get("CAPTIONKIT_FUZZ_EXAMPLES", "10000")
    for chunk in range(int(os.environ.get("CAPTIONKIT_FUZZ_CHUNKS", "10"))):
        pytest(
            session, "tests/fuzz", CAPTIONKIT_FUZZ_EXAMPLES=examples,
            CAPTIONKIT_FUZZ_SEED=str(chunk), CAPTIONKIT_FUZZ_LOG="fuzz.jsonl",
        )  # fmt: skip


@nox.session
def audit(session: nox.Session) -> None:
    """Known faults of what captionkit depends on; fails also where nobody could be asked."""
    install(session, "flax")
    session.install("pip-audit")
    found = session.run(
        "pip-audit", "--format", "json", "--progress-spinner", "off", "--skip-editable",
        silent=True, success_codes=[0, 1], stderr=None,
    )  # fmt: skip
    start = str(found).find('{"dependencies"')
    if start < 0:
        session.error(f"NOTHING WAS AUDITED: the service gave no answer.\n{str(found)[-600:]}")
    packages = json.loads(str(found)[start:].splitlines()[0])["dependencies"]
    faults = [
        f"{one['name']} {one['version']}: {', '.join(fault['id'] for fault in one['vulns'])}"
        for one in packages
        if one.get("vulns")
    ]
    if faults:
        session.error("known faults:\n" + "\n".join(faults))
    # pip-audit itself takes a service that knows none of the packages for good news
    others = [one["name"] for one in packages if one["name"] != "captionkit"]
    skipped = [one["name"] for one in packages if "skip_reason" in one and one["name"] in others]
    if skipped:
        session.error(
            f"{len(skipped)} of {len(others)} packages were NOT AUDITED, since the service does "
            f"not know them or was not reached: {', '.join(skipped[:9])}, ..."
        )
    session.log(f"{len(others)} packages audited, no known faults")


@nox.session
def examples(session: nox.Session) -> None:
    """The scripts of examples/, the code in the pages, and the tutorials: minutes.

    `nox -s examples -- --save NAME` stores what a tutorial shows.
    """
    install(session, "all", "test", "examples")
    if not session.posargs:
        quick = {"OMP_NUM_THREADS": "1", **QUICK_XLA}
        pytest(session, "tests/docs", "tests/backends/torch/test_examples.py", **quick)
    # a second thread saves a quarter on a free machine, and costs ten times as much on a busy one
    env = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    session.run("python", "docs/tutorials/execute.py", *session.posargs, env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, as HTML; warnings are errors."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def bench(session: nox.Session) -> None:
    """All benchmarks, each against its peer in one run, or those that are named; and their page."""
    install(session, "all", "bench")
    # the peer whose Flax classes transformers has removed lives in an environment of its own
    peer = Path(session.create_tmp()).resolve() / "transformers-4"
    session.run("python", "-m", "venv", str(peer))
    packages = ("transformers", "jax", "flax", "optax")
    session.run(
        f"{peer}/bin/pip", "install", "-q", "-c", "constraints-legacy.txt", *packages, external=True
    )
    names = session.posargs or sorted(path.stem for path in Path("benchmarks").glob("bench_*.py"))
    for name in names:
        env = {"CAPTIONKIT_LEGACY_PYTHON": f"{peer}/bin/python", "HF_HUB_OFFLINE": "1"}
        session.run("python", f"benchmarks/{name}.py", env=env)
    session.run("python", "benchmarks/page.py")


def assert_absent(session: nox.Session, *modules: str) -> None:
    """Fail where an environment holds what it should do without."""
    code = f"import importlib.util as u; assert not any(map(u.find_spec, {modules!r})), {modules!r}"
    session.run("python", "-c", code, silent=True)
