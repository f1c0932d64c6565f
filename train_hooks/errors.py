"""Errors that stop a finetuning run, each in one sentence.

`exit_code` is the exit code of the command: 2 for wrong usage, when nothing was started; 1 for a failed run.

TrainHooksError
├── RecipeError     2: the recipe or an override is wrong
└── TrainError      1: the shards, the base or the run itself failed
    ├── NotFoundError       2: a folder that the user named does not exist or is of another kind
    └── StoppedBySignal     SIGTERM or Ctrl-C; everything is saved
"""


class TrainHooksError(Exception):
    """Any failure of the finetuning stage, in one sentence that names the cause and the remedy."""

    exit_code = 1


class RecipeError(TrainHooksError):
    """An unknown recipe, an unknown key, or a value of the wrong type or out of range."""

    exit_code = 2


class TrainError(TrainHooksError):
    """The shards cannot be read, the base does not fit, or a step of the run failed."""


class NotFoundError(TrainError):
    """The shards, the base or the finished training that the user named does not exist or is of another kind; nothing was started."""

    exit_code = 2


class StoppedBySignal(TrainError):  # noqa: N818 - not a failure
    """A signal ended the training between two steps, after a checkpoint was written."""

    def __init__(self, signal: int, sentence: str) -> None:
        super().__init__(sentence)
        self.signal = signal
