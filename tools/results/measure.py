"""What tools/measure_recipes.py does after it has read its command line."""

from argparse import Namespace
from pathlib import Path

from torch import cuda

from fmnist.runs.files import atomic_write
from tools.results.catalogue import Recipe, Task, ablation_tasks, choose, read_catalogue, recipe_tasks
from tools.results.runner import RecipeRunner, check_tasks, locked, machine_name, remove_earlier_runs
from tools.results.store import ResultsStore, is_plain
from tools.results.tables import fill, make_tables
from tools.results.tta import evaluate_recipe


class Measurement:
    """One call of tools/measure_recipes.py.

    Args:
        given: its arguments.
    """

    def __init__(self, given: Namespace) -> None:
        self.given = given
        self.catalogue = read_catalogue(given.catalogue)
        self.chosen = choose(self.catalogue, given.recipes)
        self.store = ResultsStore(given.csv)

    def recipes(self) -> dict[str, Recipe]:
        """Return the chosen recipes that this machine can train, and print a line for each of the others."""
        missing = [name for name, recipe in self.chosen.items() if recipe.hardware == "gpu" and not cuda.is_available()]
        for name in missing:
            print(f"{name} is left out: it needs a GPU")
        return {name: recipe for name, recipe in self.chosen.items() if name not in missing}

    def pages(self) -> dict[Path, str]:
        """Return the pages with their tables.

        Raises:
            ValueError: if the rows or the markers of a page are damaged.
            OSError: if a page can't be read.
        """
        tables = make_tables(self.catalogue, self.store.read())
        texts = {}
        for page in self.given.pages:
            try:
                texts[page] = fill(page.read_text(), tables)
            except ValueError as error:
                raise ValueError(f"{page}: {error}") from error
        return texts

    def write_pages(self) -> None:
        """Write the pages whose tables have changed."""
        for page, text in self.pages().items():
            if page.read_text() != text:
                atomic_write(page, text)
                print(page)

    def tasks(self) -> list[Task]:
        """Return the trainings that are asked for and left.

        Raises:
            ValueError: if a recipe that was named has no variants.
        """
        given, recipes = self.given, self.recipes()
        if given.what == "ablations":
            for name in given.recipes or ():
                if not self.catalogue[name].variants:
                    raise ValueError(f"--recipes {name}: it has no variants in {given.catalogue}")
            tasks = ablation_tasks(recipes, given.val_size, given.seeds)
        else:
            tasks = recipe_tasks(recipes, given.seeds)
        machines = {recipe.hardware: machine_name(recipe.hardware) for recipe in recipes.values()}
        return tasks if given.again else self.store.missing(tasks, machines)

    def train(self) -> None:
        """Make the trainings one after the other.

        Raises:
            ValueError: if one isn't allowed or fails, or another process is measuring.
        """
        given = self.given
        tasks = self.tasks()
        if not tasks:
            print("nothing is left to be measured (--again measures again)")
            return
        check_tasks(tasks, given.data)
        with locked(given.outputs) as lock:
            runner = RecipeRunner(given.data, given.outputs, given.tutorial_steps, lock)
            for number, task in enumerate(tasks, start=1):
                print(f"{task} ({number} of {len(tasks)})", flush=True)
                run, row = runner.measure(task)
                if task.split == "test":
                    self.store.drop_evaluations(task.recipe, row["machine"])
                self.store.add([row])
                remove_earlier_runs(run)
                self.write_pages()
                epochs = row["seconds"] / row["tutorial_epoch_seconds"]
                print(f"  accuracy {row['accuracy']:.2%}, {row['seconds']:.2f} s, {epochs:.2f} tutorial epochs")

    def evaluate(self) -> None:
        """Evaluate the networks that recipes have left on this machine.

        Raises:
            ValueError: if there are none, or one is gone.
        """
        rows = self.store.read()
        found = 0
        for name, recipe in self.recipes().items():
            machine = machine_name(recipe.hardware)
            own = rows[(rows.recipe == name) & (rows.split == "test") & (rows.machine == machine) & is_plain(rows)]
            if len(own):
                print(f"{name}: {len(own)} networks", flush=True)
                evaluated = evaluate_recipe(own, recipe.hardware, self.given.data, self.given.outputs)
                self.store.drop_evaluations(name, machine)
                self.store.add(evaluated)
                found += len(own)
        if not found:
            raise ValueError(f"tta: none of {', '.join(self.chosen)} has been measured on this machine")
