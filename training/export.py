"""torch -> ONNX: fp32 and int8, checked against torch on real windows.

The exported graph calls ONNX Runtime's fused multi-head attention; ``onnxruntime.transformers`` does not find the
attention of a graph from torch's exporter, and unfused it costs a third of the time on windows of 384 tokens.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from serving.errors import SaysoError
from serving.windows import Window, collate
from training.model import SentenceClassifier

_OPSET = 18
_PARITY = 1e-3  # logits; the two differ by the order of their sums


def export_onnx(classifier: SentenceClassifier, path: Path, windows: Sequence[Window]) -> None:
    """Write the classifier as an fp32 ONNX file; raise SaysoError if it disagrees with torch on ``windows``."""
    batch, tokens, sentences = (torch.export.Dim.DYNAMIC for _ in range(3))
    axes = ({0: batch, 1: tokens}, {0: batch, 1: tokens}, {0: batch, 1: sentences, 2: tokens})
    fused = copy.deepcopy(classifier).cpu().float().eval()
    fused.encoder.set_attn_implementation(_FUSED)  # type: ignore[operator]
    with _quiet():
        program = torch.onnx.export(
            fused,
            _example(windows),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["input_ids", "attention_mask", "pooling"],
            output_names=["voice_logits", "doubt_logits"],
            dynamic_shapes=axes,
        )
    assert program is not None
    program.save(str(path))
    difference = parity(classifier, path, windows)
    if difference > _PARITY:
        raise SaysoError(f"{path.name}: logits differ from torch's by {difference:.4f}, more than {_PARITY}")


def quantize(fp32: Path, int8: Path) -> None:
    """Write the dynamic int8 form of an ONNX file: weights and embeddings by channel, activations on the fly."""
    with _quiet():
        quantize_dynamic(
            fp32,
            int8,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            extra_options={"MatMulConstBOnly": True},
        )


def parity(classifier: SentenceClassifier, path: Path, windows: Sequence[Window]) -> float:
    """Return the largest difference between an ONNX file's logits and torch's over the windows."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for window in windows:
        batch = collate([window])
        inputs = vars(batch)
        with torch.inference_mode():
            expected = classifier(*(torch.from_numpy(array) for array in inputs.values()))
        found = session.run(None, inputs)
        worst = max(worst, *(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True)))
    return worst


_FUSED = "onnx_multi_head_attention"


def _fused_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention as one node; ``query``, ``key``, ``value`` are (b, heads, t, d), the mask (b, t) with 1 = token."""
    batch, heads, tokens, width = query.shape
    flat = [x.transpose(1, 2).reshape(batch, tokens, heads * width) for x in (query, key, value)]
    mixed = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        [*flat, None, attention_mask.to(torch.int32)],
        attrs={"num_heads": heads, "scale": float(width**-0.5)},
        dtype=query.dtype,
        shape=flat[0].shape,
        version=1,
    )
    return mixed.reshape(batch, tokens, heads, width), None


def _padding_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    return attention_mask


AttentionInterface.register(_FUSED, _fused_attention)
AttentionMaskInterface.register(_FUSED, _padding_mask)


def _example(windows: Sequence[Window]) -> tuple[Tensor, ...]:
    batch = collate(sorted(windows, key=lambda w: (len(w.spans) < 2, w.length))[:2] * 2)
    return tuple(torch.from_numpy(array) for array in vars(batch).values())


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
