"""A checkpoint or a config from a stranger builds and runs nothing but what the project is made of."""

from pathlib import Path

import pytest
import torch
from conftest import RunScript

from fmnist import checkpoints


class Evil:
    """What a pickle of it would do."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize(
    ("group", "node"),
    [
        ("model", {"_target_": "os.system", "command": "touch {trace}"}),
        # The loss gets no arguments of the project's own, so that these would really run.
        ("loss", {"_target_": "fmnist.runs.shutil.rmtree", "path": "{kept}"}),
        ("loss", {"_target_": "fmnist.runs.write_whole", "file": "{trace}", "text": "x"}),
        (
            "loss",
            {
                "_target_": "lightning.pytorch.LightningModule.load_from_checkpoint",
                "checkpoint_path": "{evil}",
                "weights_only": False,
            },
        ),
        ("loss", {"_target_": "fmnist.losses.CrossEntropy", "label_smoothing": {"_target_": "os.getcwd"}}),
        ("data", {"_target_": "lightning.pytorch.Trainer", "default_root_dir": "{trace}"}),
    ],
)
def test_a_checkpoint_names_what_does_not_belong_there(
    train: RunScript, run_script: RunScript, tmp_path: Path, group: str, node: dict
) -> None:
    trace, evil, kept = tmp_path / "trace", tmp_path / "evil.bin", tmp_path / "kept"
    kept.mkdir()
    torch.save(Evil(trace), evil)
    file = train("trainer.max_epochs=1", "test=false").run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    named = {
        key: value.format(trace=trace, evil=evil, kept=kept) if isinstance(value, str) else value
        for key, value in node.items()
    }
    checkpoint[checkpoints.CONFIG_KEY][group] = named
    torch.save(checkpoint, file)
    done = run_script("evaluate", f"checkpoint={file}")
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert group in line
    assert not trace.exists()
    assert kept.exists()
