"""A run that is killed and goes on ends with the weights and history of an undisturbed one.

Bit for bit, on a CPU. `nox -s reliability` kills each backend 20 times.
"""

from __future__ import annotations

import random
import signal
import warnings

import killable_run
import pytest
from killing import RUN, Process, Timing, kill_again_and_again, left_by

from captionkit import checkpoints
from captionkit.errors import OutputError


def test_a_run_killed_inside_a_save_goes_on_as_if_nothing_had_been(backend, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    process = Process(RUN, backend, killed)
    assert process.wait_for("save", 3), (killed / "stderr.txt").read_text()
    process.process.send_signal(signal.SIGSTOP)
    # while it lives, even if it does not move, its folder is its own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the checkpoint that it was about to write
        with pytest.raises(OutputError, match="Another run is writing to"):
            killable_run.train(backend, killed)
        assert process.kill() == -9
        resumed = killable_run.train(backend, killed)
    assert checkpoints.step_of(resumed.output_dir / "checkpoint-24") == killable_run.STEPS
    killable_run.train(backend, whole)
    assert left_by(killed / "run") == left_by(whole / "run")
    assert not list((killed / "run").glob("**/*.tmp"))
    assert not list((killed / "run").glob("**/*.partial"))


@pytest.fixture(scope="module")
def undisturbed(backend, tmp_path_factory):
    """(what it leaves, how long its phases take)."""
    work = tmp_path_factory.mktemp("undisturbed")
    process = Process(RUN, backend, work)
    assert process.end() == 0, (work / "stderr.txt").read_text()
    return left_by(work / "run"), Timing.of(process)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments(backend, undisturbed, tmp_path, seed):
    """Five kills in a row: at start-up, at a step, twice in a save, at a change on the disk."""
    wanted, timing = undisturbed
    rng = random.Random(seed)
    plan = rng.sample(["start", "steps", "save", "save", "call"], 5)
    done = kill_again_and_again(
        backend, tmp_path, plan, timing, rng, lambda run: compare(left_by(run), wanted)
    )
    print("killed:", *done.moments, "runs ended:", done.finished)
    assert len(done.moments) == 5
    assert not done.lost


def compare(found, wanted):
    assert found.history == wanted.history
    assert found == wanted
