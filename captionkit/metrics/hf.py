"""Both ways between our metrics and Hugging Face `evaluate`.

`from_evaluate` makes a metric of any module of `evaluate`; `as_evaluate_metric` makes an
`evaluate.Metric` of one of ours, which needs no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.errors import ConfigError, HubError, MetricError, first_line
from captionkit.metrics.pairs import require_references
from captionkit.metrics.statistics import mean
from captionkit.registry import get_metric, names
from captionkit.settings import nearest
from captionkit.types import Scores

if TYPE_CHECKING:
    import evaluate

# Modules of `evaluate` whose values are errors.
_LOWER_IS_BETTER = frozenset(
    ["wer", "cer", "ter", "character", "charcut_mt", "perplexity", "mse", "mae", "mape", "smape"]
)


def from_evaluate(
    name: str,
    *,
    config_name: str | None = None,
    higher_is_better: bool | None = None,
    **options: Any,
) -> EvaluateModule:
    """A metric of the module `name` of `evaluate`: a hub name or the path of a local script.

    options go to the module's `compute`. Raises `ConfigError` where the name is neither a
    registered metric nor a module, `HubError` where the hub cannot be asked, and `MetricError`
    where the module does not score text against references.
    """
    module = _load_module(name, config_name)
    if higher_is_better is None:
        higher_is_better = name.split("/")[-1] not in _LOWER_IS_BETTER
    return EvaluateModule(name, module, higher_is_better, options)


def as_evaluate_metric(name: str, **options: Any) -> evaluate.Metric:
    """A registered metric as an `evaluate.Metric`: `compute`, `add`, `add_batch` as usual.

    Takes one reference (text) or many (a list) for each prediction and gives what
    `captionkit.score` gives.
    """
    import datasets
    import evaluate

    ours = get_metric(name, **options)  # an unknown name fails here
    text = datasets.Value("string")

    class CaptionkitMetric(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description=type(ours).__doc__ or "",
                citation="",
                inputs_description="predictions: texts. references: for each a text or a list.",
                features=[
                    datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                    datasets.Features({"predictions": text, "references": text}),
                ],
            )

        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            from captionkit.metrics import score

            return score(predictions, references, [get_metric(name, **options)])

    CaptionkitMetric.__name__ = CaptionkitMetric.__qualname__ = f"Captionkit_{name}"
    return CaptionkitMetric()


class EvaluateModule:
    """A module of `evaluate` behind our metric protocol.

    `keys` is empty until the first `compute`: what a module returns is known only then. Numbers
    become corpus values, lists of one number a pair become per-image values with their mean as
    corpus value, anything else is left out. Keeps the texts, which most modules need at once.
    """

    def __init__(
        self,
        name: str,
        module: Any,
        higher_is_better: bool,
        options: Mapping[str, Any],
    ) -> None:
        self.keys: tuple[str, ...] = ()
        self.higher_is_better = higher_is_better
        self._name = name
        self._module = module
        self._options = dict(options)
        self._takes_many = _takes_many_references(name, module)
        self._predictions: list[str] = []
        self._references: list[list[str]] = []

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        index = len(self._predictions)
        require_references(references, index)
        if not self._takes_many and len(references) > 1:
            raise MetricError(
                f"The evaluate module {self._name!r} takes one reference for each prediction, "
                f"pair {index} has {len(references)}: give the one to compare with."
            )
        self._predictions.append(prediction)
        self._references.append(list(references))

    def compute(self) -> Scores:
        """The module's numbers over all pairs so far."""
        references = self._references if self._takes_many else [r[0] for r in self._references]
        try:
            result = self._module.compute(
                predictions=self._predictions, references=references, **self._options
            )
        except Exception as error:
            raise MetricError(
                f"The evaluate module {self._name!r} failed on {len(references)} pairs: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        scores = _numbers(result, len(references), self._name)
        self.keys = tuple(scores.corpus)
        return scores


def _load_module(name: str, config_name: str | None) -> Any:
    import evaluate

    registered = names("metrics")
    where = f"Registered here: {', '.join(registered)}."
    try:
        return evaluate.load(name, config_name)
    except FileNotFoundError:
        # also raised where the hub is out of reach
        raise ConfigError(
            f"There is no metric {name!r}: it is not registered{nearest(name, registered)} "
            f"{where} Nor did evaluate find a module of that name, on this machine or on the hub "
            "(if the hub can be reached from here)."
        ) from None
    except (ConnectionError, OSError) as error:
        raise HubError(
            f"The metric {name!r} is not registered, and the hub could not be asked for a module "
            f"of that name: {first_line(error)}. {where}"
        ) from None
    except ImportError as error:
        raise MetricError(
            f"The evaluate module {name!r} needs more packages: {first_line(error)}"
        ) from None


def _takes_many_references(name: str, module: Any) -> bool:
    formats = module.features if isinstance(module.features, list) else [module.features]
    many = []
    for features in formats:
        if set(features) == {"predictions", "references"} and _is_text(features["predictions"]):
            many.append(not _is_text(features["references"]))
    if not many:
        raise MetricError(
            f"The evaluate module {name!r} does not score texts against references: "
            f"it takes {formats[0]}."
        )
    return any(many)


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


def _numbers(result: Any, count: int, name: str) -> Scores:
    scores = Scores({}, {})
    for key, value in (result or {}).items():
        if isinstance(value, (list, tuple)) and len(value) == count and all(map(_is_number, value)):
            scores.per_image[key] = [float(v) for v in value]
            scores.corpus[key] = mean(scores.per_image[key])
        elif _is_number(value):
            scores.corpus[key] = float(value)
    if not scores.corpus:
        raise MetricError(f"The evaluate module {name!r} returned no number, but {result!r}.")
    return scores


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
