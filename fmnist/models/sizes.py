"""The arithmetic of layer sizes."""


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Width after a convolution or a pooling: floor((W - F + 2P) / S) + 1; 0 or less where the kernel doesn't fit.

    W is the width before, F the kernel's, P the padding on each side, S the stride. The same holds for heights.
    Source: https://cs231n.github.io/convolutional-networks/#conv
    """
    return (size - kernel + 2 * padding) // stride + 1


def same_padding(kernel: int) -> int:
    """The padding that keeps the size at stride 1: (F - 1) / 2, which only an odd kernel has.

    Raises:
        ValueError: if the kernel is even.
    """
    if kernel % 2 == 0:
        raise ValueError(
            f"padding 'same' needs an odd kernel size, got {kernel}; write the padding as a number instead"
        )
    return (kernel - 1) // 2
