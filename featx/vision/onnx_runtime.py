"""ONNX Runtime as a runtime, on the CPU in float32."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from featx.errors import MissingExtraError
from featx.vision.exported import cannot_take, export, quiet
from featx.vision.parts import Parts
from featx.vision.task import Read, Task


class OnnxRuntime:
    """Runs the network in ONNX Runtime (https://onnxruntime.ai), a batch in parts, one core for each.

    Raises
    ------
    MissingExtraError
        If ONNX Runtime, or what writes its files, is not installed.
    UsageError
        If it cannot take the network.
    """

    name = "onnxruntime"

    def __init__(self, task: Task) -> None:
        try:
            import onnxruntime
            import onnxscript  # noqa: F401  (torch.onnx needs it, and says so too late)
        except ImportError as error:
            raise MissingExtraError("--runtime onnxruntime", "onnx") from error
        self.task = task
        program = export(task, self.name)
        n_cores = torch.get_num_threads()
        options = onnxruntime.SessionOptions()
        # One thread for each session's run: the parts of a batch are what runs side by side.
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            with quiet(), tempfile.TemporaryDirectory(prefix="featx-onnx-") as folder:
                path = Path(folder, "network.onnx")
                written = torch.onnx.export(program, dynamo=True, verbose=False)
                assert written is not None
                written.save(path)
                self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except RuntimeError as error:
            raise cannot_take(task, self.name, error) from error
        self._input = self._session.get_inputs()[0].name
        self.parts = Parts(self._infer, n_cores)

    def __call__(self, images: torch.Tensor) -> Read:
        """See `featx.vision.task.Runtime`."""
        return self.task.read(self.parts(images))

    def _infer(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self._session.run(None, {self._input: images.contiguous().numpy()})
        return tuple(torch.from_numpy(output) for output in outputs)
