"""What becomes of images that cannot be read, with Flax: see bad_image_policy.py."""

from __future__ import annotations

import jax
import pytest
from bad_image_policy import (  # noqa: F401 (the tests, and the fixtures that they ask for)
    _pillow_may_warn,
    folder,
    model,
    run,
    run_and_images,
    test_an_evaluation_lists_what_it_skips,
    test_every_image_was_seen_or_is_on_the_list,
    test_result_file_and_report_agree,
    test_stop_names_the_file_and_the_reason,
    test_stop_on_the_command_line_is_a_message,
    test_the_updates_count_every_image_that_is_not_listed,
)


@pytest.fixture(autouse=True, scope="module")
def _compiled_in_a_hurry():
    """Nothing here depends on how good the programs are, and compiling takes most of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def settings():
    return {
        "backend": "flax", "batch_size": 16, "eval_batch_size": 64, "metrics": ["wer"],
        "max_new_tokens": 4, "logging_steps": 2, "precision": "fp32", "save_steps": 0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def tiny_model(ved_folder):
    return ved_folder
