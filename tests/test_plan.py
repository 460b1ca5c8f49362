"""The timetable of a run, against one written out by hand."""

from __future__ import annotations

import pytest

from captionkit.errors import ConfigError
from captionkit.plan import Plan
from captionkit.recipe import Recipe


def plan(total=10, per_epoch=4, validation=True, higher=False, history=(), **settings):
    return Plan(Recipe().replace(**settings), per_epoch, total, validation, higher, history)


def due(plan):
    steps = range(1, plan.total_steps + 1)
    return (
        [s for s in steps if plan.log_due(s)],
        [s for s in steps if plan.evaluation_due(s)],
        [s for s in steps if plan.save_due(s)],
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"logging_steps": 3}, ([3, 6, 9, 10], [4, 8, 10], [4, 8, 10])),
        ({"eval_steps": 5, "logging_steps": 10}, ([10], [5, 10], [5, 10])),
        ({"eval_steps": 0, "logging_steps": 10}, ([10], [10], [])),
        ({"save_steps": 0, "logging_steps": 10}, ([10], [4, 8, 10], [])),
        ({"save_steps": 3, "eval_steps": 5, "logging_steps": 9}, ([9, 10], [5, 10], [3, 6, 9, 10])),
    ],
)
def test_what_is_due(settings, expected):
    assert due(plan(**settings)) == expected


def test_without_validation_nothing_is_evaluated_and_each_epoch_saved():
    assert due(plan(validation=False, logging_steps=10)) == ([10], [], [4, 8, 10])


def test_best_and_patience():
    run = plan(early_stopping_patience=2)
    outcomes = [run.evaluated(s, {"eval_loss": v}) for s, v in enumerate([3, 2, 2.5, 2.0], 1)]
    assert outcomes == [True, True, False, False]
    assert run.best_step == 2
    assert run.out_of_patience


def test_higher_is_better_and_nan_is_never_best():
    run = plan(best_metric="rougeL", higher=True)
    assert [run.evaluated(s, {"eval_rougeL": v}) for s, v in [(1, 50.0), (2, 60.0), (3, 55.0)]] == [
        True, True, False,
    ]  # fmt: skip
    assert not run.evaluated(4, {"eval_rougeL": float("nan")})


def test_history_of_a_resumed_run_is_remembered():
    history = [{"step": 4, "eval_loss": 1.0}, {"step": 5, "loss": 9}, {"step": 8, "eval_loss": 2.0}]
    run = plan(history=history, early_stopping_patience=1)
    assert run.best_step == 4
    assert run.out_of_patience


def test_unknown_best_metric_names_the_values():
    with pytest.raises(ConfigError, match=r"best_metric='bleu'.*loss, wer"):
        plan(best_metric="bleu").evaluated(1, {"eval_loss": 1.0, "eval_wer": 0.2})


def test_no_checkpoints_means_no_best():
    assert not plan(save_steps=0).keep_best
    assert not plan(load_best=False).keep_best
    assert plan().keep_best
