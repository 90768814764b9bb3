"""Mixed precision in bfloat16 that clips the gradients of fused optimizers."""

from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.optim import Optimizer


class BFloat16MixedPrecision(MixedPrecision):
    """Lightning's bf16-mixed, which refuses to clip the gradients of a fused optimizer.

    It takes them for scaled, as those of float16 are; gradients in bfloat16 never are.
    """

    def __init__(self, device: str) -> None:
        super().__init__("bf16-mixed", device)

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        Precision.clip_gradients(self, optimizer, clip_val, gradient_clip_algorithm)
