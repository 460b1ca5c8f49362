"""Updates that are not finite: when they are left out, when they end a run, and what is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from captionkit.checkpoints import all_checkpoints, step_of, was_cut_off
from captionkit.errors import DivergedError

MOST_OVERFLOWS = 100  # in a row, before training is called off


def divergence(
    what: str, step: int, learning_rate: float, image_ids: Sequence[str], output_dir: Path
) -> DivergedError:
    """The error that ends a run: at once where the loss of an update is infinite or not a number,
    and after MOST_OVERFLOWS updates in a row whose gradient was.

    No such update reaches the weights, and none is in a checkpoint. image_ids: of its images.
    """
    whole = [step_of(f) for f in all_checkpoints(output_dir) if not was_cut_off(f)]
    good = ""
    if whole:
        good = f" The last checkpoint before it is {output_dir / f'checkpoint-{max(whole)}'}."
    return DivergedError(
        f"The {what} at step {step} (learning rate {learning_rate:.3g}), with the images "
        f"{_listed(image_ids)}. If there is nothing wrong with these and their captions, start "
        "anew with a lower learning_rate, more warmup_steps, or precision='fp32'."
        f"{good}"
    )


def left_out(step: int, norm: float, image_ids: Sequence[str]) -> str:
    """What is said of an update that was left out, for its gradient is not finite."""
    return (
        f"Update {step} was left out: the norm of its gradient is {norm}. Its images are "
        f"{_listed(image_ids)}."
    )


def _listed(image_ids: Sequence[str]) -> str:
    return ", ".join(image_ids) if image_ids else "(none)"
