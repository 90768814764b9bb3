"""The recipes of conf/results.yaml, and the trainings that measure them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen

from fmnist.config.validation import check_arguments, did_you_mean
from tools.results.rows import Row

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # of a folder, and in a page's marker
Hardware = Literal["cpu", "gpu"]
Words = Annotated[Sequence[str], MinLen(1)]


@dataclass(frozen=True)
class Recipe:
    """What conf/results.yaml says of one."""

    hardware: Hardware = "cpu"
    """What it is trained on."""
    seeds: Annotated[int, Ge(1)] = 10
    """On all images, from 0 on."""
    ablation_seeds: Annotated[int, Ge(1)] = 5
    """Of each of its variants, and of itself beside them."""
    words: Words | None = None
    """Of scripts/train.py; None takes the experiment of its name."""
    variants: Mapping[str, Words] = field(default_factory=dict)
    """More words that change something, by what that is called."""


@dataclass(frozen=True)
class Task:
    """One training of a recipe, or of a variant of it."""

    recipe: str
    variant: str
    """Empty for the recipe itself."""
    seed: int
    split: str
    hardware: Hardware
    words: Sequence[str]
    """Of scripts/train.py, the seed among them."""

    @property
    def name(self) -> str:
        """Of the folder of its runs."""
        return "_".join(filter(None, [self.split, self.variant, f"seed_{self.seed}"]))

    @property
    def title(self) -> str:
        return f"{', '.join(filter(None, [self.recipe, self.variant]))}, seed {self.seed}"


def read_catalogue(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Recipe]:
    """The recipes by name.

    Raises:
        ValueError: naming the key that can't be.
    """
    recipes = {}
    for name, entry in entries.items():
        check_arguments(f"catalogue.{name}", Recipe, entry)
        recipes[name] = Recipe(**entry)
        for word in (name, *recipes[name].variants):
            if not re.fullmatch(NAME, word):
                raise ValueError(
                    f"catalogue.{name}: {word!r} should be of letters, digits, '_', '-' and '.' alone, "
                    "as a folder is called so"
                )
    return recipes


def choose(catalogue: Mapping[str, Recipe], names: Sequence[str] | None) -> dict[str, Recipe]:
    """The recipes of these names; all for None.

    Raises:
        ValueError: if there is no such recipe.
    """
    for name in names or ():
        if name not in catalogue:
            raise ValueError(f"recipes={name}: there is no such recipe{did_you_mean(name, catalogue)}")
    return {name: catalogue[name] for name in (catalogue if names is None else names)}


def recipe_tasks(recipes: Mapping[str, Recipe], seeds: int | None) -> list[Task]:
    """The trainings that are tested, recipe by recipe.

    Args:
        recipes: by name.
        seeds: how many; None leaves it to each recipe.
    """
    return [
        Task(name, "", seed, "test", recipe.hardware, [*train_words(name, recipe), f"seed={seed}"])
        for name, recipe in recipes.items()
        for seed in range(seeds or recipe.seeds)
    ]


def ablation_tasks(recipes: Mapping[str, Recipe], seeds: int | None, val_size: int) -> list[Task]:
    """The trainings of each recipe that has variants and of these, seed by seed; none sees a test image.

    The network of the last epoch counts, as in the recipe: nothing is validated before.

    Args:
        recipes: by name.
        seeds: how many; None leaves it to each recipe.
        val_size: images that are validated, and not trained on.
    """
    apart = [f"data.val_size={val_size}", "trainer.check_val_every_n_epoch=${trainer.max_epochs}", "test=false"]
    return [
        Task(name, variant, seed, "val", recipe.hardware, [*train_words(name, recipe), *words, *apart, f"seed={seed}"])
        for name, recipe in recipes.items()
        if recipe.variants
        for seed in range(seeds or recipe.ablation_seeds)
        for variant, words in {"": [], **recipe.variants}.items()
    ]


def train_words(name: str, recipe: Recipe) -> Sequence[str]:
    """The recipe's own words of scripts/train.py."""
    return recipe.words or [f"experiment={name}"]


def left(tasks: Iterable[Task], rows: Iterable[Row], machines: Mapping[Hardware, str]) -> list[Task]:
    """The trainings that have no row of this machine yet.

    Args:
        tasks: in their order.
        rows: what has been measured.
        machines: what a row calls this machine, by hardware.
    """
    known = {row.identity for row in rows}
    return [
        task
        for task in tasks
        if (task.recipe, task.variant, task.seed, task.split, "none", 1, machines[task.hardware]) not in known
    ]
