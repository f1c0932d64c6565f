"""A process that is killed still has its sentence told; one that ends, well or not, says what it says and no more."""

import subprocess
import sys

import pytest

from curate.cluster.exit_reason import SENTENCE

BEGIN = "import os, signal, subprocess, sys; from curate.cluster import exit_reason; back = exit_reason.arm(); "


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", SENTENCE + "\n"),
        ("os._exit(1)", SENTENCE + "\n"),
        (
            "subprocess.Popen(['sleep', '30'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); os._exit(1)",
            SENTENCE + "\n",
        ),
        ("back(); os._exit(1)", ""),
        ("pass", ""),
        ("sys.exit('one sentence')", "one sentence\n"),
    ],
)
def test_what_is_told_at_the_end(ending: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + ending], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == told
