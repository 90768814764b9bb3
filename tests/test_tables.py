import pytest
import torch

from fmnist.data.info import FASHION_MNIST
from fmnist.plotting.tables import class_table

CLASSES = FASHION_MNIST.classes


def cells(table: str) -> dict[str, list[str]]:
    """The numbers of each line by the name at its beginning."""
    split = (line.rsplit(maxsplit=3) for line in table.splitlines() if line.strip(" ─━╴╶-"))
    return {name.strip(): numbers for name, *numbers in split}


def test_table_is_text_in_a_notebook_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert class_table(torch.eye(10).long(), CLASSES).count("100.00") == 11


def test_class_table_has_correct_total_and_percentage_of_each_class_and_of_all() -> None:
    confusion = torch.zeros(10, 10, dtype=torch.long)
    confusion[0, [0, 2, 6]] = torch.tensor([8, 1, 6])
    confusion[9, [0, 9]] = torch.tensor([2000, 1000])
    text = class_table(confusion, CLASSES)
    table = cells(text)
    assert list(table) == ["class", *CLASSES, "all"]
    assert table["class"] == ["correct", "total", "%"]
    assert table["T-shirt/top"] == ["8", "15", "53.33"]
    assert table["Ankle boot"] == ["1,000", "3,000", "33.33"]
    assert table["Coat"] == ["0", "0", "-"]
    assert table["all"] == ["1,008", "3,015", "33.43"]
    assert "\x1b" not in text
    assert all(len(line) <= 80 and line == line.rstrip() and line for line in text.splitlines())
