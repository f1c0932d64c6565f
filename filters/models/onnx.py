"""ONNX Runtime sessions on one CPU thread: the engine runs workers in parallel, so a session must not."""

from pathlib import Path
from typing import Any


def one_thread_session(weights: str) -> Any:
    """An `onnxruntime.InferenceSession` of a file, on one thread; only errors are logged.

    Raises:
        FileNotFoundError: `weights` is not a file.
    """
    import onnxruntime

    if not Path(weights).is_file():
        raise FileNotFoundError(f"{weights} is not a file; an ONNX model is needed there")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
