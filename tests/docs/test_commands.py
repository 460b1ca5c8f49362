"""Every command in the pages is one that the command line takes: a renamed flag fails here."""

from __future__ import annotations

import re

import pytest
import tyro
from doc_pages import PAGES, ROOT, TUTORIALS, captionkit_arguments, name, prompts, text_of

import captionkit.cli
from captionkit.recipe import Recipe, field_names, shipped_recipes
from captionkit.registry import option_names


class Parsed(Exception):
    pass


@pytest.fixture
def parse(monkeypatch):
    """Parses the arguments of a command as the command itself does, and goes no further."""
    cli, training = tyro.cli, captionkit.cli.training
    base = training._base

    def parse_and_stop(*args, **kwargs):
        cli(*args, **kwargs)
        raise Parsed

    def base_of_what_there_is(arguments):  # a file that only the reader has
        named = captionkit.cli.form.peek(arguments, "recipe")
        return base(arguments) if named in shipped_recipes() else Recipe()

    monkeypatch.setattr(tyro, "cli", parse_and_stop)
    monkeypatch.setattr(training, "_base", base_of_what_there_is)

    def parse(arguments):
        command, *rest = [word for word in arguments if word != "..."]
        with pytest.raises(Parsed):
            captionkit.cli._COMMANDS[command](rest)

    return parse


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=name)
def test_every_command_can_be_parsed(page, parse, capsys):
    for prompt in prompts(text_of(page)):
        arguments = captionkit_arguments(prompt)
        if arguments:
            try:
                parse(arguments)
            except SystemExit:
                pytest.fail(f"{name(page)}: {prompt}\n{capsys.readouterr().err}")


def test_there_are_commands():
    found = [captionkit_arguments(prompt) for page in PAGES for prompt in prompts(text_of(page))]
    assert len([arguments for arguments in found if arguments]) > 40


def test_the_settings_of_backends_and_of_decoding_are_all_described():
    for backend, page in (("torch", "recipes.md"), ("flax", "recipes.md")):
        text = (ROOT / "docs" / page).read_text()
        assert [n for n in option_names(backend) if f"`{n}`" not in text] == [], backend
    text = (ROOT / "docs" / "decoding.md").read_text()
    assert [n for n in field_names("decoding") if not re.search(rf"\b{n}\b", text)] == []


def test_a_flag_that_does_not_exist_fails(parse, capsys):
    with pytest.raises(SystemExit):
        parse(["finetune", "--recipe", "quickstart", "--no-such-flag", "1"])


@pytest.mark.parametrize(
    ("prompt", "arguments"),
    [
        ("captionkit doctor a --format json > b.json", ["doctor", "a", "--format", "json"]),
        ("captionkit metrics    # all of them", ["metrics"]),
        ("JAX_PROCESS_ID=0 captionkit finetune --resume &", ["finetune", "--resume"]),
        ("torchrun -m captionkit caption a --model 'b c'", ["caption", "a", "--model", "b c"]),
        ("srun bash -c 'A=1 captionkit finetune ...'", ["finetune", "..."]),
        ('pip install "captionkit[torch]"', None),
        ("python -m nox -s demo", None),
    ],
)
def test_the_command_in_a_prompt(prompt, arguments):
    assert captionkit_arguments(prompt) == arguments


def test_a_command_goes_on_behind_a_backslash():
    assert prompts("  $ captionkit a \\\n    --b\n  said\n$ c") == ["captionkit a --b", "c"]
