"""What an earlier run left: its captions are brought to their place, its settings compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.bulk.config import BulkConfig
from captionkit.bulk.fingerprint import fingerprint
from captionkit.bulk.item import displayed
from captionkit.bulk.journal import Journal
from captionkit.bulk.place import Place
from captionkit.errors import ConfigError

if TYPE_CHECKING:
    from captionkit.bulk.table_file import TableFile
    from captionkit.bulk.text_files import TextFiles

# of BulkConfig; of the rest none changes a caption
_MATTER = ("prefix", "suffix", "trigger", "separator", "token_probabilities", "seed")


def take_up(
    journal: Journal,
    settings: Mapping[str, Any],
    target: TextFiles | TableFile,
    config: BulkConfig,
    place: Place,
) -> None:
    """Bring to its place what a killed run had captioned; start anew where settings changed.

    Raises ConfigError where they did and it was not said what is to become of the captions.
    """
    changes = [] if config.restart else _changes(journal.settings, settings)
    if changes and config.existing is None:
        raise ConfigError(
            f"The captions in {displayed(str(place.output or place.home))} were made otherwise: "
            f"{'; '.join(changes)}. Say what is meant: existing=skip keeps them and captions the "
            "rest as asked now, existing=overwrite captions all anew."
        )
    anew = bool(changes) or config.restart or journal.settings is None
    if anew and config.dry_run:
        journal.forget()
    if not config.dry_run and not config.restart:
        target.finish(journal)
    if anew and not config.dry_run:
        journal.begin(settings)
    target.look()


def caption_settings(
    config: BulkConfig, decoding: Mapping[str, Any], model: Any, checkpoint: Path | None
) -> dict[str, Any]:
    """The settings that captions depend on."""
    named = isinstance(model, (str, Path))
    name = Path(model).name if named else getattr(checkpoint, "name", type(model).__name__)
    return {
        "model": name,
        "weights": fingerprint(checkpoint),
        **{name: getattr(config, name) for name in _MATTER},
        **decoding,
    }


def _changes(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    if before is None:
        return []
    said = [
        f"{name} was {before.get(name, 'the default')!r} and is {now.get(name, 'the default')!r}"
        for name in dict.fromkeys((*before, *now))
        if name not in ("model", "weights") and before.get(name) != now.get(name)
    ]
    was, is_ = before.get("model"), now["model"]
    if before.get("weights") != now["weights"] or (now["weights"] is None and was != is_):
        what = f"the model was {was} and is {is_}"
        said.insert(0, what if was != is_ else f"the files of the model {is_} have changed")
    return said
