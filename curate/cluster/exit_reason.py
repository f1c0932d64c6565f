"""The reason printed when the process is killed without a chance to report one: by the out-of-memory killer, or by Ray's core after its cluster
went away.

Ray kills a driver that has lost its cluster from native code, where Python no longer runs. So a small shell waits at the other end of a pipe. It
reads "well" when the process ends in any other way, and prints the reason when the pipe closes without it.
"""

import atexit
import os
import subprocess
import sys
from collections.abc import Callable

SENTENCE = "rushes: the process was killed from outside, or by Ray because its cluster went away; run the same command to resume"
_SCRIPT = 'read -r word; [ "$word" = well ] || printf "%s\\n" "$0" >&2'


def arm() -> Callable[[], None]:
    """Starts the watching shell. Returns the function that disarms it; the interpreter's normal exit calls it too."""
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

    def disarm() -> None:
        atexit.unregister(disarm)
        if os.getpid() == owner:
            os.write(write, b"well\n")
            os.close(write)
            shell.wait()

    atexit.register(disarm)
    return disarm
