"""The trained recipes evaluated again: with test-time augmentation, and together as an ensemble."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from fmnist.config.restore import build_datamodule_of, restore
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.evaluation.measure import Evaluation, ensemble, measure
from fmnist.evaluation.tta import TTA, TestTimeAugmentation
from fmnist.runs import provenance
from fmnist.runs.run import Run
from tools.results.catalogue import Hardware
from tools.results.runner import code_version

ONE_IMAGE = 1.5e-4
"""The accuracy of one of 10,000 test images, and the rounding of a row."""


def evaluate_recipe(rows: pd.DataFrame, hardware: Hardware, data: Path, outputs: Path) -> list[dict[str, Any]]:
    """Return rows of each network with test-time augmentation, and of all networks together.

    Args:
        rows: the tests of one recipe on this machine, one for each network.
        hardware: where the networks compute.
        data: the folder of the data.
        outputs: the folder of the recipes' runs.

    Raises:
        ValueError: if a run is gone, or its network isn't the one of its row.
    """
    known = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
    today = {"date": provenance.now().partition("T")[0], "version": code_version()}
    evaluations: dict[TTA, list[Evaluation]] = {tta: [] for tta in get_args(TTA)}
    found, losses = [], []
    for row in known:
        run = find_run(row, outputs)
        restored = restore(run.chosen_checkpoint, hardware, str(data))
        saved, classifier, dataset, *_ = restored
        datamodule, network = build_datamodule_of(restored, run.chosen_checkpoint), classifier.network
        losses.append(classifier.loss)
        for tta, members in evaluations.items():
            classifier.network = network if tta == "none" else TestTimeAugmentation(network, tta, dataset.black)
            evaluation = measure(build_evaluation_trainer(saved), classifier, datamodule, "test")
            members.append(evaluation)
            if tta == "none":
                check_accuracy(run, row, evaluation.accuracy)
            else:
                found.append({**row, **scores(evaluation), **today, "tta": tta})
    if len(known) > 1:
        whole = {"runs": len(known), "parameters": rows.parameters.sum(), "seconds": rows.seconds.sum()}
        labels = datamodule.splits["test"][1]
        for tta, members in evaluations.items():
            found.append({**known[0], **whole, **scores(ensemble(members, losses, labels)), **today, "tta": tta})
    return found


def find_run(row: Mapping[str, Any], outputs: Path) -> Run:
    """Return the run of a row.

    Raises:
        ValueError: if it isn't there.
    """
    parent = outputs / row["recipe"] / f"test_seed_{row['seed']}"
    folders = sorted(parent.glob("*"))
    if not folders:
        raise ValueError(f"{parent}: the run is gone: recipes --recipes {row['recipe']} --again trains it again")
    return Run(folders[-1])


def check_accuracy(run: Run, row: Mapping[str, Any], accuracy: float) -> None:
    """Refuse a network that isn't the one of the row.

    Raises:
        ValueError: if more than one image differs; one may, as another machine rounds in another way.
    """
    if abs(accuracy - row["accuracy"]) > ONE_IMAGE:
        raise ValueError(
            f"{run.folder}: its accuracy is {accuracy:.4f}, and {row['accuracy']:.4f} in the results: "
            f"recipes --recipes {row['recipe']} --again trains it again"
        )


def scores(evaluation: Evaluation) -> dict[str, float]:
    """Return the scores of a row."""
    return {"accuracy": evaluation.accuracy, "loss": evaluation.loss}
