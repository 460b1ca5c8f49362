"""Bulk captioning with a Flax model: see bulk_policy.py."""

from __future__ import annotations

from bulk_policy import (  # noqa: F401 (the tests, and the fixture that they ask for)
    photos,
    test_draws_do_not_depend_on_the_batch,
    test_it_writes_what_the_captioner_says,
    test_token_probabilities_are_kept,
)
