"""The matrix of models and backends, from what the backends say of themselves."""

from __future__ import annotations

import pytest

from captionkit import registry
from captionkit.backends.flax import FlaxBackend
from captionkit.backends.torch import TorchBackend
from captionkit.cli import main
from captionkit.create import DECODERS, ENCODERS


def test_what_torch_says_is_what_can_be_created():
    parts = TorchBackend.parts
    assert set(parts["encoder"]) == set(ENCODERS)
    assert set(parts["decoder"]) == set(DECODERS)
    for role, known in (("encoder", ENCODERS), ("decoder", DECODERS)):
        assert set(FlaxBackend.parts[role]) <= set(known)


def test_the_matrix_has_a_row_a_type_and_a_column_a_backend(capsys):
    assert main(["backends"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["git", "yes", "yes"] in rows
    assert ["swin", "yes", "-"] in rows
    assert ["bert", "yes", "yes"] in rows
    assert ["encoder", "torch", "flax"] in rows


def test_a_backend_that_says_nothing_of_parts_has_none(monkeypatch):
    class Other:
        """Of somebody else."""

        name = "other"
        model_types = frozenset({"git", "ofa"})
        options_type = None

        def missing(self):
            return None

    monkeypatch.setattr(registry, "names", lambda kind: ["other"])
    monkeypatch.setattr(registry, "_try_load", lambda kind, name: Other)
    assert registry.supported_models() == {
        "other": {"model": {"git", "ofa"}, "encoder": frozenset(), "decoder": frozenset()}
    }


def test_the_flax_table_is_the_one_it_names():
    pytest.importorskip("flax")
    from captionkit.backends.flax.models import MODEL_TYPES
    from captionkit.backends.flax.models.vision_encoder_decoder.parts import DECODERS as decoders
    from captionkit.backends.flax.models.vision_encoder_decoder.parts import ENCODERS as encoders

    assert FlaxBackend.model_types == MODEL_TYPES
    assert set(FlaxBackend.parts["encoder"]) == set(encoders)
    assert set(FlaxBackend.parts["decoder"]) == set(decoders)


def test_the_torch_adapters_are_those_it_names():
    pytest.importorskip("torch")
    from captionkit.backends.torch import families

    assert TorchBackend.model_types == set(families._MODULES)
