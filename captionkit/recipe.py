"""The configuration of a run: a frozen dataclass, YAML and JSON both ways, flat from outside.

Every setting has one flat name: `finetune(learning_rate=...)`, `--learning-rate`. In files the
parts are nested. They are in `recipe_parts.py`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captionkit.errors import ConfigError
from captionkit.recipe_parts import DataConfig, Decoding, TrainingConfig
from captionkit.settings import check_types, nearest, plain, read_settings_file, unknown_setting

__all__ = [
    "Recipe", "DataConfig", "TrainingConfig", "Decoding", "shipped_recipes", "field_names",
]  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All that a run depends on. Frozen: make a changed copy with `replace`."""

    model: str | None = None
    """Hub id, folder, or a config to train from scratch (a config.json, or a shipped one such as
    git-tiny)."""
    encoder: str | None = None
    """Checkpoint of an image encoder, made into one model with `decoder`."""
    decoder: str | None = None
    """Checkpoint of a text decoder, made into one model with `encoder`."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint. Only for checkpoints whose authors you trust."""
    backend: str = "auto"
    """auto, torch, flax, or the name of a plugin's backend."""
    output_dir: str | None = None
    """Folder that the model, its history and its report are written to."""
    overwrite_output_dir: bool = False
    """Replace what an earlier run left in output_dir."""
    resume: bool = False
    """Go on from the last whole checkpoint in output_dir."""
    push_to_hub: bool = False
    """Upload the finished model with its model card."""
    hub_model_id: str | None = None
    """Repository to push to (default: the name of output_dir, under your user name)."""
    backend_options: dict[str, Any] = field(default_factory=dict)
    """Settings that only the chosen backend has; also given flat."""
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        check_types(self)
        if self.model and (self.encoder or self.decoder):
            raise ConfigError("Give either model, or encoder and decoder, not both.")
        if bool(self.encoder) != bool(self.decoder):
            raise ConfigError("encoder and decoder go together: give both, or a whole model.")
        if self.resume and self.overwrite_output_dir:
            raise ConfigError(
                "resume goes on in output_dir, overwrite_output_dir empties it: choose one."
            )

    # ---- flat settings -------------------------------------------------------------------------

    def replace(self, **settings: Any) -> Recipe:
        """A copy with some settings changed, by flat name. Unknown ones raise ConfigError."""
        parts: dict[str, dict[str, Any]] = {name: {} for name in (*_PARTS, "run")}
        for name, value in settings.items():
            if name in _PARTS and isinstance(value, _PARTS[name]):
                parts["run"][name] = value
            else:
                parts[_part_of(name)][name] = value
        run = dict(parts.pop("run"))
        for name, changes in parts.items():
            if changes:
                run[name] = dataclasses.replace(run.get(name, getattr(self, name)), **changes)
        return dataclasses.replace(self, **run)

    def flat(self) -> dict[str, Any]:
        """Every setting by its flat name."""
        run = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _PARTS
        }
        for part in _PARTS:
            run |= dataclasses.asdict(getattr(self, part))
        return run

    # ---- files ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Nested plain Python values, as in the files."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "the recipe") -> Recipe:
        """From nested values, defaults for the rest. Unknown names raise ConfigError."""
        values = dict(values)
        for part, kind in _PARTS.items():
            given = values.get(part, {})
            if not isinstance(given, Mapping):
                raise ConfigError(f"{where}: {part!r} should hold settings, found {given!r:.80}.")
            _refuse_unknown(given, kind, f"{where}, under {part!r}")
            values[part] = kind(**given)
        _refuse_unknown(values, cls, where)
        return cls(**values)

    def to_yaml(self) -> str:
        """YAML text that `from_file` reads back to an equal recipe."""
        import yaml

        # PyYAML does not read back every control character that it writes unescaped
        readable = json.dumps(self.to_dict(), ensure_ascii=False).isprintable()
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=readable)

    def to_json(self) -> str:
        """JSON text that `from_file` reads back to an equal recipe."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        # paths that are not UTF-8 hold lone surrogates, which JSON can escape
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    @classmethod
    def from_file(cls, path: str | Path) -> Recipe:
        """Read a .yaml, .yml or .json file."""
        path = Path(path)
        return cls.from_dict(read_settings_file(path), where=str(path))

    @classmethod
    def named(cls, name: str) -> Recipe:
        """A recipe that ships with captionkit, by name."""
        if name not in shipped_recipes():
            raise ConfigError(
                f"There is no recipe {name!r}{nearest(name, shipped_recipes())} "
                f"Shipped: {', '.join(shipped_recipes())}; or give the path of a YAML or JSON file."
            )
        return cls.from_file(_SHIPPED / f"{name}.yaml")

    @classmethod
    def of(cls, recipe: Recipe | str | Path | None) -> Recipe:
        """From whatever `finetune` accepts: a recipe, a shipped name, a file, or nothing."""
        if recipe is None:
            return cls()
        if isinstance(recipe, Recipe):
            return recipe
        looks_like_file = str(recipe).endswith((".yaml", ".yml", ".json"))
        return cls.from_file(recipe) if looks_like_file else cls.named(str(recipe))


_PARTS: dict[str, type] = {"data": DataConfig, "training": TrainingConfig, "decoding": Decoding}
_SHIPPED = Path(__file__).parent / "recipes"


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with captionkit."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def field_names(part: str | None = None) -> list[str]:
    """The flat names of all settings, or of one part ("run", "data", "training", "decoding")."""
    names = {"run": [f.name for f in dataclasses.fields(Recipe) if f.name not in _PARTS]}
    names |= {name: [f.name for f in dataclasses.fields(kind)] for name, kind in _PARTS.items()}
    return names[part] if part else [name for group in names.values() for name in group]


def _part_of(name: str) -> str:
    for part in ("run", *_PARTS):
        if name in field_names(part):
            return part
    raise unknown_setting(name, field_names())


def _refuse_unknown(given: Mapping[str, Any], kind: type, where: str) -> None:
    own = [f.name for f in dataclasses.fields(kind)]
    for name in given:
        if name in own:
            continue
        if name in field_names():
            home = _part_of(name)
            place = "at the top level" if home == "run" else f"under {home!r}"
            raise ConfigError(f"In {where}: {name!r} belongs {place}.")
        raise ConfigError(f"In {where}: {unknown_setting(str(name), [*own, *field_names()])}")
