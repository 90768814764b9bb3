"""The recipes of tools/recipes.yaml, and the trainings that measure them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import yaml
from annotated_types import Ge, MinLen

from fmnist.config.validation import check_arguments, did_you_mean

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # also a folder's
Hardware = Literal["cpu", "gpu"]
Overrides = Annotated[Sequence[str], MinLen(1)]


@dataclass(frozen=True)
class Recipe:
    """One entry of tools/recipes.yaml, which says what the keys mean."""

    hardware: Hardware = "cpu"
    seeds: Annotated[int, Ge(1)] = 10
    ablation_seeds: Annotated[int, Ge(1)] = 5
    overrides: Overrides | None = None
    variants: Mapping[str, Overrides] = field(default_factory=dict)
    in_readme: bool = False


@dataclass(frozen=True)
class Task:
    """One training of a recipe or of one of its variants."""

    recipe: str
    variant: str
    """Empty for the recipe itself."""
    seed: int
    split: Literal["test", "val"]
    """What is measured."""
    hardware: Hardware
    overrides: Sequence[str]

    @property
    def folder(self) -> str:
        """The name of the folder of its runs."""
        return "_".join(filter(None, [self.split, self.variant, f"seed_{self.seed}"]))

    def __str__(self) -> str:
        return f"{', '.join(filter(None, [self.recipe, self.variant]))}, seed {self.seed}"


def read_catalogue(file: Path) -> dict[str, Recipe]:
    """Return the recipes by name.

    Raises:
        ValueError: naming the key whose value isn't allowed.
    """
    try:
        entries = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} can't be read: {error}") from error
    recipes = {}
    for name, entry in (entries or {}).items():
        check_arguments(str(name), Recipe, entry or {})
        recipes[name] = Recipe(**(entry or {}))
        for part in (name, *recipes[name].variants):
            if not NAME.fullmatch(part):
                raise ValueError(
                    f"{name}: {part!r} must consist of letters, digits, '_', '-' and '.': it names a folder"
                )
    return recipes


def choose(catalogue: Mapping[str, Recipe], names: Sequence[str] | None) -> dict[str, Recipe]:
    """Return the recipes of these names, all for None.

    Raises:
        ValueError: if there is no such recipe.
    """
    for name in names or ():
        if name not in catalogue:
            raise ValueError(f"--recipes {name}: there is no such recipe{did_you_mean(name, catalogue)}")
    return {name: catalogue[name] for name in (catalogue if names is None else names)}


def train_overrides(name: str, recipe: Recipe) -> Sequence[str]:
    """Return what follows on `python scripts/train.py`."""
    return recipe.overrides or [f"experiment={name}"]


def recipe_tasks(recipes: Mapping[str, Recipe], seeds: int | None = None) -> list[Task]:
    """Return the trainings on all images, recipe by recipe, which are tested.

    Args:
        recipes: by name.
        seeds: the number of seeds; None leaves it to each recipe.
    """
    return [
        Task(name, "", seed, "test", recipe.hardware, [*train_overrides(name, recipe), f"seed={seed}"])
        for name, recipe in recipes.items()
        for seed in range(seeds or recipe.seeds)
    ]


def ablation_tasks(recipes: Mapping[str, Recipe], val_size: int, seeds: int | None = None) -> list[Task]:
    """Return the trainings of the recipes that have variants, and of these, seed by seed; none sees a test image.

    As in the recipe, the network of the last epoch counts: only that one is validated.

    Args:
        recipes: by name.
        val_size: images that are validated on, and not trained on.
        seeds: the number of seeds; None leaves it to each recipe.
    """
    held_out = [f"data.val_size={val_size}", "trainer.check_val_every_n_epoch=${trainer.max_epochs}", "test=false"]
    return [
        Task(name, variant, seed, "val", recipe.hardware, [*base, *changes, *held_out, f"seed={seed}"])
        for name, recipe in recipes.items()
        if recipe.variants
        for base in [train_overrides(name, recipe)]
        for seed in range(seeds or recipe.ablation_seeds)
        for variant, changes in {"": [], **recipe.variants}.items()
    ]
