"""scripts/benchmark.py on small sizes: that it measures what it says, not how fast anything is."""

import json

import pytest
import torch
from conftest import RunScript
from hydra import compose, initialize_config_dir

from fmnist import build
from fmnist.choices import CONF
from fmnist.data import sources
from fmnist.jobs import benchmark
from fmnist.runs import Run
from fmnist.training import set_up


@pytest.fixture
def overrides(data_root, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(benchmark, "ensure_files", lambda root: sources.ensure_files(root, None))
    return [
        "data=folder",
        f"data.root={data_root}",
        "data.val_size=100",
        "data.batch_size=50",
        "model.channels=[4]",
        "trainer.log_every_n_steps=5",
    ]


def test_benchmark_shows_and_writes_both_rates_and_their_ratio(
    run_script: RunScript, overrides: list[str], data_root
) -> None:
    words = ",".join(f"'{word}'" for word in overrides)
    done = run_script("benchmark", "repetitions=2", f"data_root={data_root}", f"overrides=[{words}]", "batch_size=50")
    assert done.status == 0, done.err
    (file,) = done.folder.glob("outputs/benchmark/*/benchmark.json")
    rates = json.loads(file.read_text())["images_per_second"]
    assert len(rates) == 3
    for name, rate in rates.items():
        assert len(rate["ratios"]) == 2
        assert rate["ours"] > 0
        assert rate["theirs"] > 0
        (line,) = (line for line in done.out.splitlines() if name[:20] in line and "measuring" not in line)
        assert f"{rate['ratio']:.2f}" in line
    assert rates["input, plain"]["ratio"] > 2  # whole batches, on whatever machine


def test_turns_are_counted_after_one_for_warming_up_and_ours_comes_first() -> None:
    ours, theirs = iter([1.0, 10.0, 20.0, 30.0]), iter([1.0, 5.0, 5.0, 5.0])
    result = benchmark.take_turns("both", (lambda: next(ours), lambda: next(theirs)), repetitions=3)
    assert result == {"ours": 20.0, "theirs": 5.0, "ratio": 4.0, "ratios": [2.0, 4.0, 6.0]}


def test_the_loop_by_hand_trains_as_the_trainer_does(overrides: list[str], tmp_path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*overrides, "trainer=cpu", "trainer.max_epochs=1", "augment=none", "model.dropout=0"])
    by_trainer, by_hand = (build.build_session(cfg, Run(tmp_path / name)) for name in ("trainer", "hand"))
    for session in (by_trainer, by_hand):
        set_up(session)
    by_trainer.trainer.fit(by_trainer.classifier, by_trainer.datamodule)
    benchmark.epoch_by_hand(by_hand)
    weights = by_hand.classifier.network.state_dict()
    for name, value in by_trainer.classifier.network.state_dict().items():
        torch.testing.assert_close(value, weights[name], msg=name)
