"""Samplers and pruners of Optuna with bounds for their arguments, and draws that can be repeated."""

import random
from collections.abc import Callable
from typing import Annotated, Any, Literal

from annotated_types import Ge
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

Number = Annotated[int, Ge(0)]
Count = Annotated[int, Ge(1)]


def sampler_bounds(n_startup_trials: Number, n_ei_candidates: Count, multivariate: bool, group: bool) -> None:
    """What Optuna's samplers would take and then fail with."""


def pruner_bounds(
    n_startup_trials: Number,
    n_warmup_steps: Number,
    min_resource: Count,
    max_resource: Count | Literal["auto"],
    reduction_factor: Annotated[int, Ge(2)],
) -> None:
    """What Optuna's pruners would take and then fail with."""


class SeededByNumber(BaseSampler):
    """A sampler that begins anew with each trial, seeded by the study's seed and the trial's number.

    So neither a study that goes on nor several workers draw the same trial twice, and a study that one worker does is
    the same each time.

    Args:
        make: the sampler with a seed.
        seed: of the study.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self.make = make
        self.seed = seed
        self.sampler = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.sampler = self.make(random.Random(f"{self.seed} {trial.number}").getrandbits(32))
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.sampler.after_trial(study, trial, state, values)
