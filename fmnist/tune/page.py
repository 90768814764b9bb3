"""The page of a study: charts of its trials, a table of the best ones, the chosen setting."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from optuna.importance import get_param_importances
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from fmnist.plotting.frame import render, svg
from fmnist.plotting.style import INK, SMALL_FONT_SIZE, TRAIN, WRONG, new_figure, styled
from fmnist.training.metric_names import direction
from fmnist.tune.space import Space
from fmnist.tune.study import ERROR, Tuning, format_value

LOOKS: dict[str, dict[str, Any]] = {
    "finished": {"color": TRAIN, "marker": "o", "s": 22, "linewidths": 0},
    "pruned": {"color": WRONG, "marker": "x", "s": 22, "linewidths": 1.2},
}
ENOUGH = 10  # finished trials to estimate the importance of parameters
TOP = 10  # trials in the table
SPREAD = 4.0  # times the distance of the better quartile from the median: a worse trial is drawn on the edge


def render_page(
    tuning: Tuning, space: Space, table: pd.DataFrame, facts: Mapping[str, str], chosen: Mapping[str, Any] | None
) -> str:
    """Return the page of a study as HTML.

    Args:
        table: the trials, as in trials.csv.
        facts: further lines of the summary, by their names.
        chosen: see `choose_setting`; None without a finished trial.
    """
    metric = tuning.metric
    shown = table[table.state.isin(LOOKS) & table[metric].notna()]
    finished = shown[shown.state == "finished"].drop(columns=["state", ERROR])
    best = finished.sort_values(metric, ascending=direction(metric) == "min", kind="stable").head(TOP)
    best[metric] = [format_value(value, metric) for value in best[metric]]
    names = [name for name in table.columns[3:-3] if shown[name].notna().any()]
    log_scale = {parameter.name for parameter in space if getattr(parameter.distribution, "log", False)}
    shares = get_param_importances(tuning.study) if len(finished) >= ENOUGH else {}
    return render(
        "tune/study.html",
        name=tuning.folder.name,
        space=[str(parameter) for parameter in space],
        facts=facts,
        chosen=chosen,
        history=svg(history_chart(shown, metric)) if len(shown) else None,
        slices=[svg(slice_chart(shown, name, metric, log=name in log_scale)) for name in names],
        importance=svg(importance_chart(shares)) if shares and all(map(math.isfinite, shares.values())) else None,
        enough=ENOUGH,
        # pandas escapes the texts
        best=Markup(best.to_html(index=False, border=0, na_rep="", float_format="{:.4g}".format)),  # nosec B704
        failures=list(table[table.state == "failed"].itertuples()),
    )


@styled
def history_chart(trials: pd.DataFrame, metric: str) -> Figure:
    """Draw the metric of each finished or pruned trial, and the best one so far, over the trials' numbers."""
    figure = new_figure(5.6, 3.0)
    axes = figure.add_subplot()
    finished = trials[trials.state == "finished"]
    best = finished[metric].cummax() if direction(metric) == "max" else finished[metric].cummin()
    axes.step(finished.trial, best, where="post", color=INK, linewidth=1, label="best so far", zorder=1)
    draw_trials(axes, trials, "trial", metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)
    return figure


@styled
def slice_chart(trials: pd.DataFrame, name: str, metric: str, *, log: bool) -> Figure:
    """Draw the metric of each finished or pruned trial over one parameter, which may have a logarithmic scale."""
    figure = new_figure(4.4, 2.8)
    axes = figure.add_subplot()
    trials = trials[trials[name].notna()]
    if is_numeric_dtype(trials[name]) and not is_bool_dtype(trials[name]):
        draw_trials(axes, trials, name, metric)
    else:
        places, labels = pd.factorize(trials[name].astype(str), sort=True)
        draw_trials(axes, trials.assign(**{name: places}), name, metric)
        axes.set_xticks(range(len(labels)), labels, fontsize=SMALL_FONT_SIZE)
        axes.set_xlim(-0.5, len(labels) - 0.5)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    return figure


def draw_trials(axes: Axes, trials: pd.DataFrame, x: str, metric: str) -> None:
    """Draw a point for each trial, on the edge if it is far worse than the others, so that these can be told apart."""
    sign = -1 if direction(metric) == "min" else 1
    values = sign * trials[metric]
    middle, better = values.quantile(0.5), values.quantile(0.75)
    values = sign * values.clip(lower=middle - SPREAD * max(better - middle, 1e-9))
    for state, look in LOOKS.items():
        own = trials.state == state
        axes.scatter(trials.loc[own, x], values[own], label=state, zorder=2, **look)
    margin = 0.07 * (values.max() - values.min()) or 1e-3
    axes.set_ylim(values.min() - margin, values.max() + margin)
    axes.set(xlabel=x, ylabel=metric)
    if sign > 0:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.grid(visible=True)


@styled
def importance_chart(importance: Mapping[str, float]) -> Figure:
    """Draw a bar for each parameter's share of 1, the most important one at the top."""
    figure = new_figure(4.8, 0.7 + 0.32 * len(importance))
    axes = figure.add_subplot()
    shares = 100 * pd.Series(importance).sort_values()
    bars = axes.barh(shares.index.tolist(), shares, color=TRAIN)
    axes.bar_label(bars, fmt="{:.0f} %", padding=3, fontsize=SMALL_FONT_SIZE)
    axes.set(xlabel="share of what the parameters explain (%)", xmargin=0.12)
    return figure
