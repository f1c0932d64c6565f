"""Errors that stop a finetuning run, each in one sentence.

The command maps TrainError to exit code 1 and RecipeError to 2.

TrainHooksError
├── RecipeError     the recipe or an override is wrong; nothing was started
└── TrainError      the shards, the base or the run itself failed
    └── StoppedBySignal     SIGTERM or Ctrl-C; everything is saved
"""


class TrainHooksError(Exception):
    """Any failure of the finetuning stage, in one sentence that names what is wrong and what to do about it."""


class RecipeError(TrainHooksError):
    """An unknown recipe, an unknown key, or a value of the wrong type or out of range."""


class TrainError(TrainHooksError):
    """The shards cannot be read, the base does not fit, or a step of the run failed."""


class StoppedBySignal(TrainError):  # noqa: N818 - nothing is wrong
    """A signal ended the training between two steps, after a checkpoint was written."""

    def __init__(self, signal: int, sentence: str) -> None:
        super().__init__(sentence)
        self.signal = signal
