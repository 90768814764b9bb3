"""What scripts/benchmark.py has measured, as text."""

from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

from fmnist.plotting.terminal import as_text, grid

WIDE = 100  # characters of a line: three numbers with their ranges
Values = Mapping[str, Any]
"""Plain values, as the benchmark's JSON has them."""


def contest_table(contests: Mapping[str, Values]) -> str:
    """For each contest its ways: medians in images per second, and ratios; all with lowest and highest."""
    called = list(
        dict.fromkeys(name for contest in contests.values() for ratios in contest["ratios"].values() for name in ratios)
    )
    rows = []
    for name, contest in contests.items():
        rows.append([name, *[""] * (1 + len(called))])
        for way, values in contest["ways"].items():
            ratios = contest["ratios"].get(way, {})
            others = [spread(ratios[other], "{:.2f}") if other in ratios else "" for other in called]
            rows.append([f"  {way}", spread(values, "{:,.0f}"), *others])
    return as_text(grid(["", "images/s", *(f"/ {other}" for other in called)], rows, [""]), WIDE)


def quantity_table(quantities: Mapping[str, Values]) -> str:
    """A line for each quantity, in its unit."""
    rows = [[name, spread(value, digits(value["median"])), value["unit"]] for name, value in quantities.items()]
    return as_text(grid(["", "median", "unit"], rows, ["", "unit"]))


def evaluation_table(result: Values) -> str:
    """The contest, then the quantities."""
    return contest_table(result["contests"]) + "\n" + quantity_table(result["quantities"])


def arithmetic_table(result: Values) -> str:
    """The matrix products; what of them each network's step reaches; the shares of the step."""
    products = [[name, spread(rate, "{:,.1f}", 1e-9)] for name, rate in result["products"].items()]
    reached, shares = [], []
    for row in result["networks"]:
        name = f"{row['network']}, {row['precision']}"
        reached.append(
            [
                name,
                f"{row['flops'] / 1e9:.3f}",
                spread(row["flops_per_second"], "{:,.1f}", 1e-9),
                f"{row['of_product']['median']:.1%}",
                f"{row['of_product_in_passes']['median']:.1%}",
            ]
        )
        parts = [f"{share['median']:.1%}" for share in row["shares"].values()]
        shares.append([name, f"{1000 * row['step_seconds']['median']:.2f}", *parts])
    parts_of_a_step = list(result["networks"][0]["shares"]) if result["networks"] else []
    tables = [
        grid(["matrix product", "GFLOP/s"], products, ["matrix product"]),
        grid(["training step", "GFLOP", "GFLOP/s", "of product", "in passes"], reached, ["training step"]),
        grid(["its parts", "ms", *parts_of_a_step], shares, ["its parts"]),
    ]
    return "\n".join(as_text(table) for table in tables)


def growth_table(result: Mapping[str, Values]) -> str:
    """For each size the time and the memory, with the exponents from the size before: 1 is linear."""
    rows = []
    for name, axis in result.items():
        rows.append([f"{name}, {'an epoch' if axis['of'] == 'epoch' else 'a step'}", "", "", "", ""])
        exponents = zip_longest([None, *axis["seconds_exponents"]], [None, *axis["mib_exponents"]])
        for size, seconds, mib, (time_power, memory_power) in zip(
            axis["sizes"], axis["seconds"], axis["mib"], exponents, strict=True
        ):
            time = spread(seconds, digits(1000 * seconds["median"]), 1000)
            rows.append([f"  {size:,}", time, power(time_power), f"{mib:,.1f}", power(memory_power)])
    return as_text(grid(["size", "ms", "exponent", "MiB", "exponent "], rows, ["size"]))


TABLES: Mapping[str, Callable[[Any], str]] = {
    "input": contest_table,
    "training": contest_table,
    "arithmetic": arithmetic_table,
    "start": quantity_table,
    "evaluation": evaluation_table,
    "memory": lambda result: quantity_table(result["quantities"]),
    "growth": growth_table,
}
"""How each comparison is shown."""


def spread(values: Values, form: str, factor: float = 1) -> str:
    """Median (lowest..highest), or the value alone if there is but one."""
    median, lowest, highest = (form.format(factor * values[key]) for key in ("median", "lowest", "highest"))
    return median if len(values["values"]) == 1 else f"{median} ({lowest}..{highest})"


def digits(value: float) -> str:
    """A format with three digits or so, and no -0.00."""
    return "{:,.0f}" if value >= 100 else "{:.1f}" if value >= 10 else "{:z.2f}"


def power(exponent: float | None) -> str:
    return "" if exponent is None else f"{exponent:.2f}"
