"""A sentence for when the process ends without a word: its memory was wanted elsewhere, or Ray's core ended it as its cluster went away.

Ray ends a driver that has lost its cluster inside machine code, where nothing of Python runs any more. So a small shell waits at the other end
of a pipe: it hears "well" when the work ends in any other way, and speaks when the pipe closes without it.
"""

import atexit
import os
import subprocess
import sys
from collections.abc import Callable

SENTENCE = (
    "rushes: the process was ended from outside, or by Ray as its cluster went away; the same command goes on from here"
)
_SCRIPT = 'read -r word; [ "$word" = well ] || printf "%s\\n" "$0" >&2'


def leave() -> Callable[[], None]:
    """Leaves the sentence behind; returns the function that takes it back, which the interpreter's end calls too."""
    if sys.platform == "win32":
        return lambda: None
    read, write = os.pipe()  # not inherited by programs that this process starts, so it closes with the process
    try:
        shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, SENTENCE], stdin=read, stdout=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:
        os.close(write)
        return lambda: None
    finally:
        os.close(read)
    owner = os.getpid()

    def take_back() -> None:
        atexit.unregister(take_back)
        if os.getpid() == owner:
            os.write(write, b"well\n")
            os.close(write)
            shell.wait()

    atexit.register(take_back)
    return take_back
