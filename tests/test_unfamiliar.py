"""Images unlike the training images: the detector alone, and the marks of the commands."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from conftest import RunScript
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import fmnist
from fmnist.config.restore import build_datamodule_of, restore
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.evaluation import inspection, unfamiliar
from fmnist.evaluation.unfamiliar import Detector, neighbour_distances
from fmnist.runs import checkpoints


def around(count: int, seed: int, centre: int) -> Tensor:
    """Features (N, 8) near one axis."""
    generator = torch.Generator().manual_seed(seed)
    return 5 * functional.one_hot(torch.tensor(centre), 8) + torch.randn(count, 8, generator=generator)


def test_distance_is_the_mean_cosine_distance_to_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfamiliar, "PRODUCTS", 100)
    generator = torch.Generator().manual_seed(0)
    known, features = torch.randn(30, 5, generator=generator), torch.randn(7, 5, generator=generator)
    cosine = functional.cosine_similarity(features[:, None], known[None], dim=2)
    expected = 1 - cosine.sort(dim=1, descending=True).values[:, :10].mean(dim=1)
    torch.testing.assert_close(neighbour_distances(features, known, 10), expected)
    one = functional.cosine_similarity(known[:1], known[1:2]).expand(2)
    torch.testing.assert_close(neighbour_distances(known[:2], known[:2], 10), 1 - (1 + one) / 2)


def test_of_other_images_as_many_pass_as_of_the_validation_images_and_strange_ones_do_not() -> None:
    detector = Detector.fit(around(2000, 0, centre=0), around(4000, 1, centre=0))
    assert detector is not None
    passed = (detector.distances(around(20_000, 2, centre=0)) <= detector.threshold).double().mean().item()
    assert passed == pytest.approx(0.99, abs=0.004)
    assert (detector.distances(around(4000, 1, centre=0)) <= detector.threshold).sum() == 3960
    assert (detector.distances(around(100, 3, centre=5)) > detector.threshold).all()


def test_the_length_of_the_features_makes_no_difference() -> None:
    known, validation = around(200, 0, centre=0), around(200, 1, centre=0)
    one, two = Detector.fit(known, validation), Detector.fit(1e6 * known, 3 * validation)
    assert one is not None
    assert two is not None
    assert one.known.equal(two.known)
    assert two.threshold == pytest.approx(one.threshold, rel=1e-5)


def test_without_images_or_with_nan_there_is_no_detector() -> None:
    features = around(20, 0, centre=0)
    assert Detector.fit(features, features[:0]) is None
    assert Detector.fit(features[:0], features) is None
    assert Detector.fit(features, features.where(features < 5, math.nan)) is None


KNOWN = torch.ones(3, 4, dtype=torch.half)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [0.1],
        {"known": KNOWN},
        {"threshold": 0.1},
        {"known": KNOWN, "threshold": math.inf},
        {"known": KNOWN, "threshold": "0.1"},
        {"known": KNOWN.float(), "threshold": 0.1},
        {"known": KNOWN[0], "threshold": 0.1},
        {"known": KNOWN[:0], "threshold": 0.1},
        {"known": [[1.0]], "threshold": 0.1},
    ],
)
def test_what_is_no_detector_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="detector: "):
        Detector.from_dict(values)


def test_features_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="4 features are known, the network has 8"):
        Detector(KNOWN, 0.1).distances(around(2, 0, centre=0))


def test_last_linear_layer_is_the_one_that_is_called_last() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(3, 2), nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.body(images.flatten(1)))
            return logits

    images, network = torch.rand(5, 1, 2, 2), Odd()
    features, logits = unfamiliar.features_and_logits(network, images)
    assert features.equal(network.body(images.flatten(1)))
    assert logits.equal(network(images))
    assert not network.head._forward_pre_hooks


def test_a_run_keeps_a_detector_and_predictions_are_marked(
    train: RunScript, run_script: RunScript, tmp_path: Path
) -> None:
    run = train("trainer.precision=32-true", f"data.root={synthetic.write(tmp_path / 'black', black=True)}").run
    file = run / "checkpoints" / "best.ckpt"
    kept = checkpoints.load(file)[checkpoints.DETECTOR_KEY]
    restored = restore(file, "cpu")
    datamodule = build_datamodule_of(restored, file)
    datamodule.setup()
    network, dataset = restored.classifier.network, restored.dataset
    features, _ = inspection.features(network, dataset.normalise(datamodule.splits["train"][0]))
    assert len(kept["known"]) == len(features) == 500  # all of them, as there are few
    torch.testing.assert_close(kept["known"].float(), functional.normalize(features), atol=1e-3, rtol=0)
    validated, _ = inspection.features(network, dataset.normalise(datamodule.splits["val"][0]))
    distances = neighbour_distances(validated, kept["known"].float(), unfamiliar.NEIGHBOURS).sort().values
    assert kept["threshold"] == pytest.approx(distances[98].item(), rel=1e-3)

    Image.fromarray(synthetic.make(1, seed=1, black=True)[0][0].numpy()).save("usual.png")
    noise = torch.zeros(28, 28, dtype=torch.uint8)
    noise[4:24, 4:24] = torch.randint(256, (20, 20), generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save("noise.png")
    words = (f"run={run}", "images=[usual.png,noise.png]", "accelerator=cpu")
    shown = json.loads(run_script("predict", *words, "format=json").out)
    assert [entry["unfamiliar"] for entry in shown] == [False, True]
    rows = list(csv.DictReader(run_script("predict", *words, "format=csv").out.splitlines()))
    assert [row["unfamiliar"] for row in rows] == ["False", "True"]
    _, _, first, second = run_script("predict", *words).out.splitlines()
    assert [line.endswith(".png  (unfamiliar)") for line in (first, second)] == [False, True]
    predictions = fmnist.load(run).predict(["usual.png", "noise.png"])
    assert [prediction.marks["unfamiliar"] for prediction in predictions] == [False, True]


def test_few_features_are_kept_of_a_wide_network(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = finished_run / "checkpoints" / "best.ckpt"
    restored = restore(file, "cpu")
    datamodule = build_datamodule_of(restored, file)
    datamodule.setup()
    known, validation = datamodule.splits["train"][0], datamodule.splits["val"][0]
    trainer = build_evaluation_trainer(restored.config)

    def fit() -> Detector:
        found = unfamiliar.fit_detector(trainer, restored.classifier, restored.dataset, known, validation, 64)
        assert found is not None
        return found

    monkeypatch.setattr(unfamiliar, "MOST_IMAGES", 50)
    detector = fit()
    width = detector.known.shape[1]
    assert len(detector.known) == 50
    assert detector.known.equal(fit().known)
    monkeypatch.setattr(unfamiliar, "MOST_NUMBERS", 20 * width)
    assert len(fit().known) == 20


def test_without_validation_images_nothing_is_marked(train: RunScript, run_script: RunScript) -> None:
    run = train("data.val_size=0").run
    Image.fromarray(synthetic.make(1, seed=1, black=True)[0][0].numpy()).save("usual.png")
    done = run_script("predict", f"run={run}", "usual.png", "format=json")
    assert "unfamiliar" not in json.loads(done.out)[0]
