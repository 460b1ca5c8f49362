"""Hugging Face's Trainer with our loss, our evaluation, our order and our timetable.

Everything else is the Trainer's: accumulation, precision, clipping, schedules, optimizer, DDP and
FSDP through Accelerate, and the state that resuming needs.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import math
import operator
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from captionkit import checkpoints
from captionkit.backends.torch import sharding
from captionkit.backends.torch.batches import TrainingBatches
from captionkit.backends.torch.captioner import TorchCaptioner, normalised, versions
from captionkit.backends.torch.loss import IGNORED, caption_loss
from captionkit.data.captions import save_tokenizer
from captionkit.data.preprocess import Preprocessor
from captionkit.divergence import MOST_OVERFLOWS, divergence, left_out
from captionkit.errors import DataError, DivergedError, ImageError
from captionkit.models import has_weights
from captionkit.plan import Plan
from captionkit.types import TrainEvent, TrainingJob

_STATE = "captionkit-state.json"  # in a checkpoint: the loss since the last log


class CaptionTrainer(Trainer):
    """A Trainer for one `TrainingJob`.

    tokenizer: the captions'; the Trainer is not given it, for it would put the tokenizer's special
        tokens in the place of those that the model starts and ends captions with.
    autocast: the dtype that mixed precision computes in, None for fp32.
    batches: what it trains on; the other arguments are those of `Trainer`.
    """

    def __init__(
        self,
        job: TrainingJob,
        tokenizer: Any,
        preprocess: Preprocessor,
        batches: TrainingBatches,
        autocast: torch.dtype | None,
        model: Any,
        args: TrainingArguments,
        **settings: Any,
    ):
        super().__init__(
            model=model, args=args, train_dataset=batches, callbacks=[_Timetable(self)], **settings
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # the loss is divided by the update's target tokens
        self.job = job
        self.caption_tokenizer = tokenizer
        self.preprocess = preprocess
        self.batches = batches
        # what evaluates and is saved: where weights are shared out a copy, on the CPU meanwhile
        self.whole = copy.deepcopy(model) if job.options.sharded else model
        self.captioner = TorchCaptioner(self.whole, tokenizer, preprocess, autocast)
        self.plan: Plan  # made when the number of steps is known
        self.interrupted = False
        self.learning_rate = 0.0
        self.images_in_update = 0
        self.images_seen = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64)
        self.steps_in_sum = 0
        self.image_ids: list[str] = []  # of the update that is being computed
        self.gradient_norm: torch.Tensor | float = 0.0  # of the same, before it was clipped
        self.overflows = 0  # since the last log
        self.overflows_in_a_row = 0
        self._clip = self.accelerator.clip_grad_norm_
        self.accelerator.clip_grad_norm_ = self._clip_and_keep_norm

    def create_accelerator_and_postprocess(self) -> None:
        """The Trainer's own, and FSDP on CPUs as well."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and getattr(self.accelerator.state, "fsdp_plugin", None) is None:
            sharding.switch_on(self.accelerator, self.args)
            self.is_fsdp_enabled = True

    # ---- data and loss -------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """The batches are whole already, and those of this process: nothing to collate or share."""
        return DataLoader(self.batches, collate_fn=operator.itemgetter(0))

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor]:
        """The batches of one update, and its number of target tokens over all processes."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        self.image_ids = [image for batch in batches for image in batch.pop("image_ids")]
        skipped = [image for batch in batches for image in batch.pop("skipped")]
        counts = torch.tensor(
            [
                sum(int((batch["labels"] != IGNORED).sum()) for batch in batches),
                sum(int((batch["labels"] != IGNORED).any(1).sum()) for batch in batches),
                len(skipped),
            ],
            device=device,
        )
        tokens, self.images_in_update, bad = self.accelerator.reduce(counts).tolist()
        # each process sees its own; the main one reports all, and all of them stop
        for image_id, reason in gather_object(skipped) if bad else ():
            if self.job.recipe.data.on_bad_image == "stop":
                raise ImageError(
                    f"{reason.rstrip('.')}. on_bad_image='skip' goes on without such images"
                    f"{'; resume, from the last checkpoint' if self.state.global_step else ''}."
                )
            self.emit("skip", image_id=image_id, reason=reason)
        self.images_seen += self.images_in_update
        return batches, torch.tensor(max(tokens, 1), device=device)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """This pass's share of the update's mean loss a target token."""
        logits = self.captioner.family.logits(
            model,
            normalised(inputs["pixel_values"], self.preprocess),
            inputs["input_ids"],
            inputs["attention_mask"],
        )
        smoothing = self.job.recipe.training.label_smoothing
        loss = caption_loss(logits, inputs["labels"], smoothing) / num_items_in_batch
        # the gradients of the processes are averaged, their shares of the loss are to be summed
        loss = loss * self.accelerator.num_processes
        self.loss_sum += loss.detach().to(self.loss_sum.device, torch.float64)
        return (loss, logits) if return_outputs else loss

    def _clip_and_keep_norm(self, *arguments: Any, **more: Any) -> Any:
        norm = self._clip(*arguments, **more)
        # where the model is sharded so is the norm
        self.gradient_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        return norm

    # ---- logging, evaluating, saving -----------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Report the mean loss since the last log, exact also across a resumption."""
        if "loss" not in logs:
            return
        loss = self.mean_loss_sum() / self.steps_in_sum
        values = {"loss": loss, "learning_rate": self.learning_rate}
        if math.isfinite(logs.get("grad_norm", math.nan)):
            values["grad_norm"] = float(logs["grad_norm"])
        if self.overflows:
            values["overflows"] = self.overflows
        self.loss_sum.zero_()
        self.steps_in_sum = self.overflows = 0
        self.emit("log", **values)
        # no super(): on_log would reach trackers, which are core's
        self.control.should_log = False

    def check_update(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave out an update whose gradient is not finite. Raises DivergedError: see `divergence`.

        Called between the backward passes and the optimizer, in all processes.
        """
        if self.any_process(not math.isfinite(self.loss_sum.item())):
            loss = self.mean_loss_sum()
            raise self._diverged(f"loss became {loss}", optimizer)
        norm = float(self.gradient_norm)  # over all processes, so that they agree
        if math.isfinite(norm):
            self.overflows_in_a_row = 0
            return
        self.overflows += 1
        self.overflows_in_a_row += 1
        if self.overflows_in_a_row == MOST_OVERFLOWS:
            what = f"gradients overflowed {MOST_OVERFLOWS} times in a row"
            raise self._diverged(what, optimizer)
        if self.accelerator.scaler is None:  # which leaves it out itself, and lowers its scale
            optimizer.zero_grad(set_to_none=True)
            images = gather_object(self.image_ids)
            if self.is_world_process_zero():
                warnings.warn(left_out(self.state.global_step + 1, norm, images), stacklevel=2)

    def _diverged(self, what: str, optimizer: torch.optim.Optimizer) -> DivergedError:
        step, rate = self.state.global_step + 1, optimizer.param_groups[0]["lr"]
        images = gather_object(self.image_ids)
        return divergence(what, step, rate, images, Path(self.args.output_dir))

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Hand the weights of this moment to core's Evaluator."""
        evaluator = self.job.evaluator
        assert evaluator is not None
        with self.whole_weights():
            values = evaluator(self.captioner)
        self.emit("evaluate", **values)
        prefixed = {f"eval_{name}": value for name, value in values.items()}
        best = self.plan.evaluated(self.state.global_step, prefixed)
        if self.is_world_process_zero() and (best or not self.plan.keep_best):
            evaluator.keep()
        if best and self.plan.keep_best:
            self.control.should_save = True
        if self.plan.out_of_patience:
            self.control.should_training_stop = True
        self.control.should_evaluate = False
        return prefixed

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        main = self.is_world_process_zero()
        with checkpoints.removed_unless_written(folder) if main else contextlib.nullcontext():
            if main:
                checkpoints.begin(folder)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            loss_sum = self.mean_loss_sum()
            if main:
                state = {
                    "loss_sum": loss_sum,
                    "steps": self.steps_in_sum,
                    "overflows": [self.overflows, self.overflows_in_a_row],
                }
                (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")
                checkpoints.write_manifest(folder)
        if main:
            keep = self.job.recipe.training.save_total_limit
            checkpoints.prune(folder.parent, keep, self.plan.best_step)
        self.emit("save", path=str(folder))

    @contextlib.contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Within the block `whole` is the model of this moment, on the device."""
        if not self.job.options.sharded:
            yield
            return
        sharding.copy_weights(self.accelerator.unwrap_model(self.model), self.whole)
        self.whole.to(self.args.device)
        yield
        self.whole.to("cpu")

    def load_weights(self, model: Any) -> None:
        """Take over the weights of a whole model."""
        if self.job.options.sharded:
            sharding.load_weights(self.accelerator.unwrap_model(self.model), model)
        else:
            self.model.load_state_dict(model.state_dict())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model and what belongs to it, as without FSDP."""
        if not self.job.options.sharded:
            super().save_model(output_dir, _internal_call)
            return
        sharding.copy_weights(self.accelerator.unwrap_model(self.model), self.whole)
        self._save(output_dir)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.job.options.sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = sharding.whole_state(self.optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.job.options.sharded or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        sharding.load_state(self.optimizer, Path(checkpoint) / OPTIMIZER_NAME)
        state = torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True)
        self.lr_scheduler.load_state_dict(state)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.job.options.sharded:  # else it is what the model was made of
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # the Trainer would add training_args.bin, a pickle; it calls this in every process
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        if self.job.options.sharded:
            model, state_dict = self.whole, None
        else:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        model.save_pretrained(folder, state_dict=state_dict)
        save_tokenizer(self.caption_tokenizer, folder)
        self.preprocess.save(folder)

    def restore(self, checkpoint: Path) -> None:
        """Take up the running mean of the loss where a checkpoint left it."""
        state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        self.loss_sum += state["loss_sum"]
        self.steps_in_sum = state["steps"]
        self.overflows, self.overflows_in_a_row = state.get("overflows", [0, 0])

    def any_process(self, flag: bool) -> bool:
        """Whether it is true in any process: they must stop at the same step."""
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(int(flag), device=self.args.device)) > 0)

    def mean_loss_sum(self) -> float:
        """That of all processes. All of them call it."""
        if self.accelerator.num_processes == 1:
            return self.loss_sum.item()
        # between GPUs only what lies on them is exchanged
        return self.accelerator.reduce(self.loss_sum.to(self.args.device), "mean").item()

    def emit(self, kind: Any, **values: Any) -> None:
        """Report to core, from the main process only."""
        if self.is_world_process_zero():
            state = self.state
            self.job.on_event(
                TrainEvent(kind, state.global_step, state.max_steps, state.epoch or 0.0, values)
            )


class _Timetable(TrainerCallback):
    """Asks the plan after each step what is due; the Trainer's own strategies are off."""

    def __init__(self, trainer: CaptionTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, job = self.trainer, self.trainer.job
        passes = len(kwargs["train_dataloader"])
        trainer.plan = Plan(
            job.recipe,
            steps_per_epoch=math.ceil(passes / args.gradient_accumulation_steps),
            total_steps=state.max_steps,
            has_validation=job.evaluator is not None,
            higher_is_better=job.higher_is_better,
            history=job.history,
        )
        trainer.plan.forget_best_if_damaged(Path(args.output_dir))
        trainable = [p.numel() for p in trainer.model.parameters() if p.requires_grad]
        trainer.emit(
            "start",
            parameters=trainer.model.num_parameters(),
            trainable=sum(trainable),
            from_scratch=not has_weights(job.model),
            device=str(args.device),
            processes=trainer.accelerator.num_processes,
            versions=versions(),
        )
        if job.evaluator is not None and not job.resume_from and state.is_world_process_zero:
            job.evaluator.preview(trainer.captioner)
        if job.resume_from and trainer.plan.evaluation_missed(state.global_step, job.history):
            trainer.evaluate()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.batches.epoch = int(state.epoch or 0)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if not (trainer.images_seen or trainer.job.resume_from or trainer.interrupted):
            raise DataError(
                f"None of the training images of {trainer.job.train.name} could be read."
            )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.check_update(kwargs["optimizer"])

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # before the scheduler moves on: the rate that this update used
        self.trainer.learning_rate = kwargs["optimizer"].param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, step = self.trainer, state.global_step
        trainer.steps_in_sum += 1
        trainer.emit("step", images=trainer.images_in_update)
        control.should_log = trainer.plan.log_due(step)
        control.should_evaluate = trainer.plan.evaluation_due(step)
        control.should_save = trainer.plan.save_due(step)
        if trainer.any_process(trainer.job.should_stop()):
            trainer.interrupted = True
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True
