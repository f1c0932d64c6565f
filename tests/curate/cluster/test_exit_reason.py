"""A killed process leaves an exit reason on standard error; one that ends by itself adds nothing to its own output."""

import subprocess
import sys

import pytest

from curate.cluster.exit_reason import SENTENCE

BEGIN = "import os, signal, subprocess, sys; from curate.cluster import exit_reason; back = exit_reason.arm(); "


@pytest.mark.parametrize(
    ("ending", "printed"),
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
def test_the_exit_reason_is_printed_only_for_a_killed_process(ending: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + ending], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == printed
