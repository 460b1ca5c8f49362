"""Every error that a user can meet: what was found, what was expected, what to do."""


class CaptionkitError(Exception):
    """The base of all errors raised on purpose; the command line prints it plainly."""


class ConfigError(CaptionkitError, ValueError):
    """A setting that is unknown, impossible, or contradicts another or the machine."""


class DataError(CaptionkitError):
    """A dataset that is missing, empty, or not in the form that its source expects."""


class ImageError(DataError):
    """One image that cannot be read. `on_bad_image` decides what follows from it."""


class MetricError(CaptionkitError, ValueError):
    """Predictions and references that no metric can be computed from."""


class CheckpointError(CaptionkitError):
    """A model folder that is missing, incomplete, damaged, or of a kind no backend supports."""


class HubError(CaptionkitError):
    """The Hugging Face Hub could not be reached, or has no such (public) repository."""


class OutputError(CaptionkitError):
    """An output folder that cannot be written, or that holds something we must not overwrite."""


class NotInstalledError(CaptionkitError, ImportError):
    """A backend, dataset or metric that is known but whose requirements are not installed."""


class PluginError(CaptionkitError):
    """Two distributions that register the same name, or one that registers something else."""


class TrainingInterrupted(CaptionkitError):
    """Training was asked to stop; a checkpoint was written first. The message says how to go on."""


class CaptioningInterrupted(CaptionkitError):
    """Bulk captioning was asked to stop; its captions are kept. The message says how to go on."""


class ProcessError(CaptionkitError):
    """Another process of the same run has ended, or could not be reached."""


class DivergedError(CaptionkitError):
    """The loss of an update was infinite or not a number; the message names its images."""


def first_line(error: BaseException) -> str:
    """Another library's error in one line of at most 160 characters, for a message of ours."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
