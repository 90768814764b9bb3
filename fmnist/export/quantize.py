"""An ONNX file whose weights and activations have 8 bits."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmnist.config.errors import is_out_of_memory
from fmnist.export.graph import INPUT, quiet

FILE = "model.int8.onnx"
IMAGES = 512
"""Training images from which the ranges of the activations are taken."""
BATCH = 64
QUANTIZED = ["Conv", "MatMul", "Gemm"]
"""Operations with 8 bits, in which almost all of the time is spent; the others stay in float32."""


def calibration_images(images: Tensor, count: int = IMAGES) -> Tensor:
    """Return training images (count, C, H, W) at random, always the same ones, of images (N, C, H, W)."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[:count]]


def quantize(source: Path, target: Path, images: Tensor) -> None:
    """Write an ONNX file with 8 bits for one in float32.

    Weights have a scale for each output channel; activations one scale, from the smallest and the largest value that
    the images give (QDQ format).
    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

    Args:
        images: uint8, in the layout of the file.

    Raises:
        ValueError: if the graph can't be quantised.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Serves the images in batches, as the library asks for them."""

        def __init__(self) -> None:
            self.batches = iter(images.split(BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    prepared = target.with_suffix(".prepared")
    try:
        with quiet():
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED,
                per_channel=True,
                reduce_range=True,  # 7 bits: products of 8 overflow on CPUs without VNNI, which give other classes
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            model, original = onnx.load(target), onnx.load(source)
            onnx.helper.set_model_props(model, {each.key: each.value for each in original.metadata_props})
            onnx.save(model, target)
    except Exception as error:  # of any operation of any graph
        if is_out_of_memory(error):
            raise
        raise ValueError(f"quantize=int8: {' '.join(str(error).split())[:300]}") from error
    finally:
        prepared.unlink(missing_ok=True)
