"""Muon by value: against `torch.optim.Muon` for matrices, and against AdamW for the rest."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from fmnist.training import optimizers
from fmnist.training.optimizers import Muon, orthogonalise, orthogonalise_together


def gradients(shapes: list[tuple[int, ...]], steps: int) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(steps)]


def run(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], given: list[list[torch.Tensor]]) -> None:
    for step in given:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.view_as(parameter).clone()
        optimizer.step()


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (16, 16)])
def test_orthogonalise_keeps_the_singular_vectors_and_makes_the_values_about_1(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    even = left.T @ orthogonalise(matrix) @ right.T
    assert ((even.diagonal() > 0.6) & (even.diagonal() < 1.3)).all()
    assert (even - even.diagonal().diag()).abs().max() < 0.05


def test_matrices_are_orthogonalised_together_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "SMALL", 600)
    shapes = [(8, 72), (72, 8), (16, 16), (1, 9), (32, 40), (40, 32), (30, 50)]
    matrices = [torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in shapes]
    together = orthogonalise_together(matrices)
    assert [matrix.shape for matrix in together] == shapes
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(result, orthogonalise(matrix), atol=0.02, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_filters_are_updated_on_a_gpu_as_on_a_cpu() -> None:
    shapes: list[tuple[int, ...]] = [(8, 4, 3, 3), (64, 1, 3, 3), (16, 8, 1, 1), (10, 6)]
    here = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    formats = [torch.channels_last if len(shape) == 4 else torch.preserve_format for shape in shapes]
    there = [
        nn.Parameter(parameter.detach().to("cuda", memory_format=layout))
        for parameter, layout in zip(here, formats, strict=True)
    ]
    for parameters in (here, there):
        optimizer = Muon(parameters, lr=0.05, weight_decay=0.1)
        for step in gradients(shapes, steps=3):
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
            optimizer.step()
    for mine, its in zip(here, there, strict=True):
        torch.testing.assert_close(its.detach().cpu(), mine.detach(), atol=5e-3, rtol=0, check_stride=False)


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (64, 1, 3, 3)])
def test_filters_are_updated_as_by_the_muon_of_torch(shape: tuple[int, int, int, int]) -> None:
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    filters = nn.Parameter(torch.randn(shape))
    matrix = nn.Parameter(filters.detach().flatten(1).clone())
    given = gradients([shape], steps=3)
    run(Muon([filters], **settings), [filters], given)
    # Torch sums the momentum that we average; orthogonalising drops the factor.
    run(torch.optim.Muon([matrix], ns_steps=5, **settings), [matrix], given)
    torch.testing.assert_close(filters.detach().flatten(1), matrix.detach(), atol=5e-3, rtol=0)


def test_other_parameters_are_updated_as_by_adamw() -> None:
    shapes: list[tuple[int, ...]] = [(10, 6), (6,), ()]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = copy.deepcopy(ours)
    given = gradients(shapes, steps=3)
    run(Muon(ours, adam_lr=0.01, adam_betas=(0.8, 0.9), adam_weight_decay=0.1), ours, given)
    run(AdamW(theirs, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1), theirs, given)
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its)


def test_a_training_resumes_from_its_state() -> None:
    shapes: list[tuple[int, ...]] = [(8, 4, 3, 3), (10, 6)]
    whole = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    cut = copy.deepcopy(whole)
    given = gradients(shapes, steps=4)
    run(Muon(whole), whole, given)
    first = Muon(cut)
    run(first, cut, given[:2])
    second = Muon(cut)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, cut, given[2:])
    assert all(torch.equal(mine, its) for mine, its in zip(whole, cut, strict=True))
