"""An encoder as ONNX, by Model Optimizer's own exporter."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BuildFailed, UnusableGraph
from harness.prepare.vendor_log import import_quietly, quiet_to
from harness.records.spec import EncoderSpec, Tower

if TYPE_CHECKING:
    from torch import Tensor, nn

OUTPUT = "embedding"
_MOST_BYTES = 2**31 - 1  # protobuf's limit for one message, and so for one ONNX file without external data
_TRACED_ROWS = 2  # more than one, so that tracing cannot mistake the batch for a size that broadcasts


def input_name(spec: EncoderSpec) -> str:
    """The engine's input: `image` or `tokens`."""
    return "image" if spec.tower is Tower.IMAGE else "tokens"


def export_onnx(encoder: nn.Module, spec: EncoderSpec, path: Path, *, log: Path | None = None) -> None:
    """Write `encoder` to `path` as the vendor's exporter gives it, in float16, with a dynamic batch.

    Input `image` float16 [batch, 3, H, W] or `tokens` int64 [batch, context]; output `embedding` float16 [batch, dim].
    The encoder is in float16 afterwards.

    Args:
        encoder: from `load_encoder`, quantized or not; calibrated in FP32.
        log: file for what the exporter prints; None discards it.
    Raises:
        UnusableGraph: the weights do not fit into one ONNX file.
        BuildFailed: the exporter stopped, or its output is not called `embedding`.
    """
    _require_one_file(encoder, spec)
    with quiet_to(log):
        # Half first and weights_dtype="fp32", which leaves types alone: asked for "fp16", the exporter of 0.47 leaves a final
        # projection that multiplies float by half, which TensorRT's parser refuses.
        content = _exported(encoder.half(), spec)
    path.write_bytes(content)


def _exported(encoder: nn.Module, spec: EncoderSpec) -> bytes:
    exporter = import_quietly("modelopt.torch._deploy.utils.torch_onnx", to="export the encoder")
    with _output_called(exporter, OUTPUT), _temporary_files_removed():
        try:
            packed, facts = exporter.get_onnx_bytes_and_metadata(
                encoder,
                (_example(encoder),),
                model_name=spec.stem,
                dynamic_axes={input_name(spec): {0: "batch"}, OUTPUT: {0: "batch"}},
                weights_dtype="fp32",
            )
        except Exception as error:  # three exporters in a row, each with its own errors; the cause is kept
            raise BuildFailed(f"Model Optimizer could not export {spec.name}: {type(error).__name__}: {error}") from error
    if facts["output_onnx_names"] != [OUTPUT]:
        raise BuildFailed(f"the export of {spec.name} has outputs {facts['output_onnx_names']}; expected [{OUTPUT!r}]")
    return exporter.OnnxBytes.from_bytes(packed).get_onnx_model_file_bytes()


def _example(encoder: Any) -> Tensor:
    import torch

    dtype = torch.float16 if len(encoder.row_shape) == 3 else torch.int64
    return torch.zeros(_TRACED_ROWS, *encoder.row_shape, dtype=dtype)


def _require_one_file(encoder: nn.Module, spec: EncoderSpec) -> None:
    nbytes = 2 * sum(parameter.numel() for parameter in encoder.parameters())
    if nbytes > _MOST_BYTES:
        raise UnusableGraph(
            f"{spec.name} has {nbytes:,} bytes of float16 weights; expected at most {_MOST_BYTES:,}, which one ONNX file holds; "
            "choose a smaller encoder"
        )


@contextmanager
def _output_called(exporter: Any, name: str) -> Iterator[None]:
    # The exporter has no argument for the output's name. It takes it from this constant, and from the path to the tensor if
    # forward returns a container; so this is how the untouched recipe gets the name that engines of other recipes have.
    before = exporter.ONNX_EXPORT_OUT_PREFIX
    exporter.ONNX_EXPORT_OUT_PREFIX = name
    try:
        yield
    finally:
        exporter.ONNX_EXPORT_OUT_PREFIX = before


@contextmanager
def _temporary_files_removed() -> Iterator[None]:
    # The exporter makes its own temporary folders and leaves them behind when it stops half-way.
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="enginegate-") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
