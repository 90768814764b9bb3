import torch
from torch import Tensor

from fmnist.data.info import CLASSES
from fmnist.plotting.tables import class_table


def confusion(**rows: list[int]) -> Tensor:
    """Counts with nothing but the rows c0=..., c3=... given."""
    counts = torch.zeros(10, 10, dtype=torch.long)
    for name, row in rows.items():
        counts[int(name[1:])] = torch.tensor(row)
    return counts


def cells(table: str) -> dict[str, list[str]]:
    """The numbers of each line by the name at its beginning."""
    split = (line.rsplit(maxsplit=3) for line in table.splitlines() if line.strip(" ─━╴╶-"))
    return {name.strip(): numbers for name, *numbers in split}


def test_correct_total_and_percentage_of_each_class_and_of_all() -> None:
    table = cells(
        class_table(
            confusion(
                c0=[8, 0, 1, 1, 0, 0, 5, 0, 0, 0],
                c1=[0, 3, 0, 0, 0, 0, 0, 0, 0, 0],
                c9=[2000, 0, 0, 0, 0, 0, 0, 0, 0, 1000],
            )
        )
    )
    assert table["class"] == ["correct", "total", "%"]
    assert table["T-shirt/top"] == ["8", "15", "53.33"]
    assert table["Trouser"] == ["3", "3", "100.00"]
    assert table["Ankle boot"] == ["1,000", "3,000", "33.33"]
    assert table["all"] == ["1,011", "3,018", "33.50"]


def test_class_without_images_has_no_percentage() -> None:
    table = cells(class_table(confusion(c4=[0, 0, 0, 1, 1, 0, 0, 0, 0, 0])))
    assert table["Coat"] == ["1", "2", "50.00"]
    assert table["Bag"] == ["0", "0", "-"]
    assert cells(class_table(confusion()))["all"] == ["0", "0", "-"]


def test_class_with_nothing_right_has_0_percent() -> None:
    assert cells(class_table(confusion(c8=[5, 0, 0, 0, 0, 0, 0, 0, 0, 0])))["Bag"] == ["0", "5", "0.00"]


def test_every_class_has_a_line_in_the_order_of_the_labels() -> None:
    assert list(cells(class_table(torch.eye(10).long()))) == ["class", *CLASSES, "all"]


def test_table_is_plain_text_for_a_terminal_of_80() -> None:
    table = class_table(10_000 * torch.eye(10).long())
    assert "\x1b" not in table
    assert all(len(line) <= 80 and line == line.rstrip() and line for line in table.splitlines())
