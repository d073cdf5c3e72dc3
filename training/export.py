"""torch -> ONNX: fp32 and int8, checked against torch on real windows.

The exported graph calls ONNX Runtime's fused multi-head attention and Gelu; its optimizers do not find them in a graph
from torch's exporter, and unfused they cost a third of the time on windows of 384 tokens. The graph has no padding
mask, for a window is a pass of its own: without one, attention takes the runtime's faster path.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface
from transformers.activations import GELUActivation
from transformers.masking_utils import AttentionMaskInterface

from serving.errors import SaysoError
from serving.windows import Window, collate
from training.model import SentenceClassifier

_OPSET = 18
_PARITY_WINDOWS = 8
_PARITY = 1e-3  # logits; the two differ by the order of their sums


def export_onnx(classifier: SentenceClassifier, path: Path, windows: Sequence[Window]) -> None:
    """Write the classifier as an fp32 ONNX file; raise SaysoError if it disagrees with torch on ``windows``."""
    batch, tokens, sentences = (torch.export.Dim.DYNAMIC for _ in range(3))
    axes = ({0: batch, 1: tokens}, None, {0: batch, 1: sentences, 2: tokens})
    with _quiet():
        program = torch.onnx.export(
            _fused(classifier),
            _example(windows),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            input_names=["input_ids", "pooling"],
            output_names=["voice_logits", "doubt_logits"],
            dynamic_shapes=axes,
        )
    assert program is not None
    program.save(str(path))
    difference = parity(classifier, path, windows)
    if difference > _PARITY:
        raise SaysoError(f"{path.name}: logits differ from torch's by {difference:.4f}, more than {_PARITY}")


def export_int8(classifier: SentenceClassifier, path: Path, windows: Sequence[Window]) -> None:
    """Write the classifier as a dynamic int8 ONNX file: weights by channel, activations on the fly.

    ``windows`` show which channels have outliers, which are smoothed first. The first layer's way back from the
    wide hidden layer stays fp32: its outliers are the largest, and it is a twentieth of the work.
    """
    with TemporaryDirectory(dir=path.parent) as folder:
        fp32 = Path(folder) / path.name
        export_onnx(smooth(classifier, windows), fp32, windows[:_PARITY_WINDOWS])
        with _quiet():
            quantize_dynamic(
                fp32,
                path,
                per_channel=True,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                nodes_to_exclude=_first_narrowing(fp32),
                extra_options={"MatMulConstBOnly": True},
            )


def _first_narrowing(path: Path) -> list[str]:
    """Return the name of the first product with a weight that has fewer outputs than inputs."""
    graph = onnx.load(path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    weights = ((node, shapes.get(node.input[1], ())) for node in graph.node if node.op_type == "MatMul")
    return [node.name for node, shape in weights if len(shape) == 2 and shape[0] > shape[1]][:1]


def smooth(
    classifier: SentenceClassifier, windows: Sequence[Window], *, alpha: float = 0.75
) -> SentenceClassifier:
    """Return an equal classifier whose encoder is easier to quantize (SmoothQuant, Xiao et al. 2023).

    One scale serves a whole activation, so a few channels with outliers leave the others few of the 256 steps.
    Each linear layer's input channels are divided, and its weights multiplied, by peak^alpha / weight^(1 - alpha);
    layers with the same input share a scale, so that the input is scaled and rounded once.
    """
    smoothed = copy.deepcopy(classifier).cpu().float().eval()
    layers = {name: m for name, m in smoothed.encoder.named_modules() if isinstance(m, nn.Linear)}
    for peak, names in _peaks(smoothed, layers, windows):
        weights = torch.cat([layers[name].weight.detach() for name in names])
        scale = peak.clamp(min=1e-3) ** alpha / weights.abs().amax(0).clamp(min=1e-5) ** (1 - alpha)
        inverse = 1 / scale  # one tensor, or the runtime would not see that the products are the same
        for name in names:
            parent, _, leaf = name.rpartition(".")
            setattr(smoothed.encoder.get_submodule(parent), leaf, _Smoothed(layers[name], scale, inverse))
    return smoothed


class _Smoothed(nn.Module):
    """A linear layer with a scale moved from its input's channels to its weights."""

    def __init__(self, layer: nn.Linear, scale: Tensor, inverse: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.layer.weight.data *= scale
        self.inverse: Tensor
        self.register_buffer("inverse", inverse)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs * self.inverse)
        return outputs


def _peaks(
    classifier: SentenceClassifier, layers: dict[str, nn.Linear], windows: Sequence[Window]
) -> list[tuple[Tensor, list[str]]]:
    """Return the largest absolute input by channel over the windows, and the layers that take this input."""
    peaks = {name: torch.zeros(layer.in_features) for name, layer in layers.items()}
    taken: dict[int, tuple[Tensor, list[str]]] = {}  # by the input's identity, in the first window

    def watch(name: str) -> RemovableHandle:
        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not peaks[name].any():
                taken.setdefault(id(inputs[0]), (inputs[0], []))[1].append(name)
            peaks[name] = torch.maximum(peaks[name], inputs[0].abs().flatten(0, -2).amax(0))

        return layers[name].register_forward_pre_hook(note)

    handles = [watch(name) for name in layers]
    with torch.inference_mode():
        for window in windows:
            classifier(*_tensors(window))
    for handle in handles:
        handle.remove()
    return [(peaks[names[0]].clone(), names) for _, names in taken.values()]


def _tensors(*windows: Window) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in vars(collate(windows)).values())


def parity(classifier: SentenceClassifier, path: Path, windows: Sequence[Window]) -> float:
    """Return the largest difference between an ONNX file's logits and torch's over the windows."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for window in windows:
        with torch.inference_mode():
            expected = classifier(*_tensors(window))
        found = session.run(None, collate([window]).unpadded())
        worst = max(
            worst, *(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True))
        )
    return worst


_FUSED = "onnx_multi_head_attention"


def _fused_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention as one node; ``query``, ``key``, ``value`` are (b, heads, t, d)."""
    batch, heads, tokens, width = query.shape
    flat = [x.transpose(1, 2).reshape(batch, tokens, heads * width) for x in (query, key, value)]
    mixed = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        flat,
        attrs={"num_heads": heads, "scale": float(width**-0.5)},
        dtype=query.dtype,
        shape=flat[0].shape,
        version=1,
    )
    return mixed.reshape(batch, tokens, heads, width), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


AttentionInterface.register(_FUSED, _fused_attention)
AttentionMaskInterface.register(_FUSED, _no_mask)


class _FusedGelu(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(
            "com.microsoft::Gelu", [inputs], dtype=inputs.dtype, shape=inputs.shape, version=1
        )


def _fused(classifier: SentenceClassifier) -> SentenceClassifier:
    """Return a copy that exports to the runtime's own nodes, and computes in nothing else."""
    fused = copy.deepcopy(classifier).cpu().float().eval()
    fused.encoder.set_attn_implementation(_FUSED)  # type: ignore[operator]
    for module in fused.encoder.modules():
        for name, child in module.named_children():
            if isinstance(child, GELUActivation | nn.GELU):
                setattr(module, name, _FusedGelu())
    return fused


def _example(windows: Sequence[Window]) -> tuple[Tensor, None, Tensor]:
    # Every axis of the example is longer than one, or the exporter takes it for fixed.
    input_ids, _, pooling = _tensors(*[min(windows, key=lambda w: (len(w.spans) < 2, w.length))] * 2)
    return input_ids, None, pooling


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and the quantizer log their inner workings; a user cannot act on them."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
