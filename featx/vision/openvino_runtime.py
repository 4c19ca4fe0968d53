"""OpenVINO as a runtime, on the CPU in float32."""

from __future__ import annotations

import threading
from typing import Any

import torch

from featx.errors import MissingExtraError
from featx.vision.exported import cannot_take, export, quiet
from featx.vision.parts import Parts
from featx.vision.task import Read, Task


class OpenVinoRuntime:
    """Runs the network in OpenVINO (https://docs.openvino.ai), a batch in parts, one stream on each core.

    Raises
    ------
    MissingExtraError
        If OpenVINO is not installed.
    UsageError
        If it cannot take the network.
    """

    name = "openvino"

    def __init__(self, task: Task) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("--runtime openvino", "fast") from error
        self.task = task
        program = export(task, self.name)
        n_cores = torch.get_num_threads()
        settings = {
            # On processors that have bfloat16 it would be taken unasked.
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": n_cores,
            "INFERENCE_NUM_THREADS": n_cores,
        }
        try:
            with quiet():
                model = openvino.convert_model(program)
            self._model = openvino.Core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise cannot_take(task, self.name, error) from error
        self._requests = threading.local()
        self.parts = Parts(self._infer, n_cores)

    def __call__(self, images: torch.Tensor) -> Read:
        """See `featx.vision.task.Runtime`."""
        return self.task.read(self.parts(images))

    def _infer(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        requests: Any = self._requests
        if not hasattr(requests, "mine"):
            requests.mine = self._model.create_infer_request()
        outputs = requests.mine.infer({0: images.contiguous().numpy()}, share_inputs=True)
        return tuple(torch.from_numpy(outputs[i]) for i in range(len(self._model.outputs)))
