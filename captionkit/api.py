"""The public functions: each tells its story from top to bottom and leaves the work to others."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captionkit import checkpoints, hub, models, registry
from captionkit.caption_arguments import check_batch_size
from captionkit.create import create
from captionkit.data import IN_MEMORY, load_splits
from captionkit.errors import CheckpointError, ConfigError, TrainingInterrupted
from captionkit.evaluated_data import evaluated_dataset
from captionkit.evaluation import Evaluation, Evaluator, evaluate_captioner
from captionkit.interrupt import stop_requested_by_signal
from captionkit.metrics import metric_objects, score
from captionkit.metrics.pairs import PairCheck
from captionkit.plan import Plan
from captionkit.processes import Processes, connected, is_main_process, launched
from captionkit.recipe import Decoding, Recipe, field_names
from captionkit.run_folder import RunFolder, write_evaluation_report
from captionkit.settings import unknown_setting
from captionkit.tracking import Tracking, read_history
from captionkit.types import Backend, Caption, Captioner, Metric, TrainingJob

__all__ = ["Evaluation", "FinetuneResult", "caption", "evaluate", "finetune", "load", "score"]


@dataclass(frozen=True)
class FinetuneResult:
    """What `finetune` returns.

    output_dir: the Hugging Face folder of the model, with `captionkit/` inside.
    metrics: of the evaluation whose weights were kept; empty without validation images.
    history: the rows of history.jsonl, each with `step` and what was logged then.
    skipped: images that could not be read, by id, with the reason.
    """

    output_dir: Path
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    skipped: dict[str, str]
    report: Path
    _loaded: list[Captioner] = field(default_factory=list, repr=False, compare=False)

    @property
    def captioner(self) -> Captioner:
        """The trained model, loaded on first use."""
        if not self._loaded:
            self._loaded.append(load(self.output_dir))
        return self._loaded[0]


def finetune(recipe: Recipe | str | Path | None = None, **settings: Any) -> FinetuneResult:
    """Fine-tune a captioning model, evaluate it by generation, and write a report.

    recipe: a `Recipe`, the name of one that ships ("quickstart"), or a YAML or JSON path.
    settings: fields of the recipe, flat (`model=`, `dataset=`, `learning_rate=`, ...), and of the
        backend's options. `dataset` may also be a `CaptionDataset`, a `datasets.Dataset`, or a list
        of (image, caption) or (image, captions).

    Raises `ConfigError` for settings that do not fit, `DataError`, `CheckpointError`, `HubError`,
    `OutputError`, and `TrainingInterrupted` after Ctrl-C, when a checkpoint was saved.
    """
    in_memory = settings.pop("dataset") if _is_data(settings.get("dataset")) else None
    if in_memory is not None:
        settings["dataset"] = IN_MEMORY
    settings = {
        name: value for name, value in settings.items() if (name, value) != ("dataset", None)
    }
    if settings.get("resume") and recipe is None and settings.get("output_dir"):
        recipe = RunFolder(Path(settings["output_dir"])).stored_recipe()
    plan = with_settings(Recipe.of(recipe), settings)
    if plan.model is None and plan.encoder is None:
        raise ConfigError(
            "Which model? Give model= (a hub id, a folder, or a config such as git-tiny), or "
            'recipe="quickstart".'
        )
    if plan.data.streaming and plan.training.max_steps is None:
        raise ConfigError(
            "A stream has no length, so a run over it needs max_steps, such as max_steps=10000."
        )
    if plan.data.dataset == IN_MEMORY and in_memory is None:
        raise ConfigError(
            "This run's data were given in memory. Give the same data again: "
            "captionkit.finetune(recipe, dataset=..., resume=True)."
        )
    folder = RunFolder(Path(plan.output_dir or _default_output_dir(plan)))
    plan = plan.replace(output_dir=plan.output_dir or folder.root.name)

    # everything that can be wrong is found out before anything is written
    folder.check(plan)
    if plan.resume and plan.backend == "auto":
        plan = plan.replace(backend=folder.stored_recipe().backend)
    resume_from = checkpoints.newest_whole(folder.root) if plan.resume else None
    resume_step = checkpoints.step_of(resume_from) if resume_from else None
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = resume_from or _source(plan, scratch / "created")
        backend = _chosen_backend(plan.backend, source)
        options = _backend_options(plan, backend)
        backend.check(plan, options)
        train, validation = load_splits(plan.data, plan.training.seed, in_memory)
        higher_is_better = registry.check_metrics(plan.training.metrics, plan.training.best_metric)
        if plan.push_to_hub:
            hub.check_login(plan)

        plan = plan.replace(backend=backend.name)
        run = stack.enter_context(folder.locked(plan, resume_step))
        stack.enter_context(run.disk_errors())
        should_stop = stack.enter_context(stop_requested_by_signal())
        model = models.prepare_model(source, scratch / "model", train, plan.trust_remote_code)
        with Tracking(run, resume_step) as tracking:
            if resume_step:
                timetable = Plan(
                    plan, 1, resume_step, validation is not None, higher_is_better, tracking.history
                )
                _check_patience(timetable, resume_step)
            evaluator = None
            if validation is not None:
                evaluator = Evaluator(
                    validation, plan.training.metrics, plan.decoding,
                    plan.training.eval_batch_size, plan.data.on_bad_image, run.folder,
                    tracking.on_evaluation_batch, tracking.on_skip,
                )  # fmt: skip
            job = TrainingJob(
                plan, options, model, run.root, train, evaluator, tracking, should_stop,
                higher_is_better, resume_from, tuple(tracking.history),
            )  # fmt: skip
            backend.train(job)
            processes = connected()
        if not is_main_process():
            if told := processes.broadcast(b""):  # when the first has written everything
                raise TrainingInterrupted(told.decode())
            values = evaluator.last.metrics if evaluator and evaluator.last else {}
            return FinetuneResult(run.root, values, [], {}, run.folder / "report.html")
        if (should_stop() or processes.count > 1) and not tracking.finished:
            why = (
                f"Stopped after step {tracking.step}; a checkpoint is saved. Go on with:\n"
                f"  {_how_to_go_on(run, in_memory)}"
            )
            processes.broadcast(why.encode())
            raise TrainingInterrupted(why)
        report = run.finish(plan, tracking, train, validation)
    if plan.push_to_hub:
        hub.push(run.root, plan)
    processes.broadcast(b"")
    return FinetuneResult(
        run.root, run.metrics(), read_history(run.history), tracking.skipped, report
    )


def load(
    checkpoint: str | Path,
    backend: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> Captioner:
    """Load a model for captioning: a folder that any backend wrote, or a hub id.

    backend: "auto" is the backend that wrote the checkpoint if it is installed, else the first
        that runs its model type. device: "cpu", "cuda:0", ...; default: the best there is.
    dtype: "fp32" (default), "bf16" or "fp16".

    Raises `CheckpointError`, `HubError`, `ConfigError` for a backend, device or dtype that there is
    not, and `NotInstalledError`.
    """
    folder = models.resolve_model(str(checkpoint), trust_remote_code)
    if folder.is_file():
        raise CheckpointError(
            f"{checkpoint} is a config to train from scratch, not a trained model. Train it with "
            f"finetune(model={str(checkpoint)!r}, ...), and give the folder that this writes."
        )
    return _chosen_backend(backend, folder).load(folder, device, dtype, trust_remote_code)


def evaluate(
    captioner: Captioner | str | Path,
    dataset: Any,
    *,
    metrics: Sequence[str | Metric] | None = None,
    batch_size: int = 32,
    seed: int | None = None,
    output_dir: str | Path | None = None,
    **settings: Any,
) -> Evaluation:
    """Caption a dataset and score the captions against all their references.

    captioner: what `load` returned, or a folder or hub id. dataset: the name of a source, or what
    `finetune` takes in memory. metrics: registered names, modules of `evaluate`, or `Metric`
    objects; default: those of the run that trained the model, else "wer" and "rouge"; none with an
    empty list. settings: fields of `DataConfig` (`data_dir=`, `split=` with
    "validation" as default, ...) and of `Decoding`. seed: of the split, where the source has no
    validation images of its own. On the data that the model was trained on it, `test_size`, the
    filters and the split are by default those of that run, so that nothing it was trained on is
    evaluated. output_dir: where predictions and a report are written; nothing is written without
    it.

    Raises what `load` does, `DataError`, `ImageError` unless on_bad_image is "skip", `MetricError`
    and `OutputError`.
    """
    data_names, decoding_names = field_names("data"), field_names("decoding")
    for name in settings:
        if name not in (*data_names, *decoding_names):
            raise unknown_setting(name, [*data_names, *decoding_names])
    data = {k: v for k, v in settings.items() if k in data_names}
    decoding = {k: v for k, v in settings.items() if k in decoding_names}
    if isinstance(captioner, (str, Path)):
        home: Path | None = models.resolve_model(str(captioner))
    else:
        home = getattr(captioner, "checkpoint", None)
    trained_with = models.recipe_of(home)
    if metrics is None:
        metrics = (trained_with or Recipe()).training.metrics
    scorers = metric_objects(metrics) if metrics else []
    check_batch_size(batch_size)
    model = load(captioner) if isinstance(captioner, (str, Path)) else captioner
    examples = evaluated_dataset(dataset, data, seed, trained_with)
    defaults = getattr(model, "defaults", {})
    started = time.perf_counter()
    result = evaluate_captioner(
        model, examples, scorers, Decoding(**{**defaults, **decoding}), batch_size,
        data.get("on_bad_image", "stop"),
    )  # fmt: skip
    if examples.has_captions and is_main_process():
        check = PairCheck()
        for row in result.predictions:
            check.check(row.prediction, row.references)
        check.warn()
    if output_dir is not None and is_main_process():
        facts = {**getattr(model, "facts", {}), "seconds": time.perf_counter() - started}
        write_evaluation_report(Path(output_dir), result, examples, facts)
    connected().wait()
    return result


def caption(
    images: Any,
    model: str | Path,
    *,
    backend: str = "auto",
    device: str | None = None,
    **decoding: Any,
) -> list[Caption]:
    """Caption images with a model in one call; `load` once instead to caption again and again."""
    return load(model, backend, device).caption(images, **decoding)


def processes_of(
    model: Captioner | str | Path, backend: str = "auto", trust_remote_code: bool = False
) -> Processes:
    """The processes of this run, where there are several connected by the model's backend."""
    if launched()[1] > 1 and isinstance(model, (str, Path)):
        chosen = _chosen_backend(backend, models.resolve_model(str(model), trust_remote_code))
        getattr(chosen, "connect", lambda: None)()
    return connected()


def with_settings(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    """The recipe with flat settings changed, those of the backend's options among them."""
    own = {name: value for name, value in settings.items() if name in (*field_names(), *_PARTS)}
    recipe = recipe.replace(**own)
    options = {name: value for name, value in settings.items() if name not in own}
    if options:
        known = registry.option_names(recipe.backend)
        for name in options:
            if name not in known:
                raise unknown_setting(name, [*field_names(), *known])
        recipe = recipe.replace(backend_options={**recipe.backend_options, **options})
    return recipe


_PARTS = ("data", "training", "decoding")


def _check_patience(timetable: Plan, resume_step: int) -> None:
    if timetable.out_of_patience:
        raise ConfigError(
            f"This run was stopped early, after step {resume_step}: there is nothing to go on with."
            f" Only a higher early_stopping_patience lets it go on (it is {timetable.patience})."
        )


def _source(recipe: Recipe, created: Path) -> Path:
    """The folder of the recipe's model, made from its encoder and decoder where it has those."""
    if recipe.model:
        return models.resolve_model(recipe.model, recipe.trust_remote_code)
    trust = recipe.trust_remote_code
    encoder = models.resolve_model(str(recipe.encoder), trust)
    decoder = models.resolve_model(str(recipe.decoder), trust)
    return create(encoder, decoder, created, recipe.training.seed, trust)


def _is_data(dataset: Any) -> bool:
    return dataset is not None and not isinstance(dataset, str)


def _how_to_go_on(run: RunFolder, in_memory: Any) -> str:
    if in_memory is not None:
        return f"captionkit.finetune({str(run.recipe)!r}, dataset=<the same data>, resume=True)"
    return f"captionkit finetune --recipe {shlex.quote(str(run.recipe))} --resume"


def _chosen_backend(name: str, model: Path) -> Backend:
    kind = models.model_type(model)
    if name == "auto":
        return registry.backend_for(kind, preferred=models.writer_of(model))
    backend = registry.get_backend(name)
    if kind not in backend.model_types:
        raise ConfigError(
            f"The backend {backend.name!r} does not run models of type {kind!r}. It runs: "
            f"{', '.join(sorted(backend.model_types))}."
        )
    return backend


def _backend_options(recipe: Recipe, backend: Any) -> Any:
    if backend.options_type is None:
        if recipe.backend_options:
            raise ConfigError(f"The backend {backend.name!r} has no options of its own.")
        return None
    known = registry.option_names(backend.name)
    for name in recipe.backend_options:
        if name not in known:
            raise unknown_setting(name, known)
    return backend.options_type(**recipe.backend_options)


def _default_output_dir(recipe: Recipe) -> str:
    model = Path(str(recipe.model or recipe.encoder)).stem
    return f"{model}-{(recipe.data.dataset or 'captions').split('/')[-1]}"
