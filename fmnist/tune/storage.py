"""The database that keeps the trials of a study, and what it says when it can't be used."""

import contextlib
import logging
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

HEARTBEAT = 10  # seconds between two signs of life of a running trial
GRACE = 60  # seconds without one, after which its process is taken for dead
PATIENCE = 20  # seconds, while another process writes to a database file
ATTEMPTS = 5  # to create the tables, which another machine may be doing at the same time


class Storage(RDBStorage):
    """A database whose heartbeat survives an error, and ends with the process."""

    def record_heartbeat(self, trial_id: int) -> None:
        # A Ctrl-C while Optuna starts its thread leaves it without an end, and the process would wait for it forever.
        if not threading.main_thread().is_alive():
            raise SystemExit
        with contextlib.suppress(SQLAlchemyError, OptunaError):  # it is sent again after the interval
            super().record_heartbeat(trial_id)


def open_storage(url: str, stale: Callable[[Study, FrozenTrial], None]) -> Storage:
    """Return the database with a URL.

    Args:
        url: as SQLAlchemy takes it.
        stale: is called with each trial whose heartbeat has stopped for GRACE seconds.
    """
    options = {"connect_args": {"timeout": PATIENCE}} if url.startswith("sqlite:") else None
    for attempt in range(ATTEMPTS):
        try:
            return Storage(
                url, options, heartbeat_interval=HEARTBEAT, grace_period=GRACE, heartbeat_stale_trial_callback=stale
            )
        except (SQLAlchemyError, OptunaError) as error:
            if attempt == ATTEMPTS - 1 or not re.search("exists|UNIQUE", str(error)):
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError


@contextlib.contextmanager
def database_errors(name: str, *also: type[Exception]) -> Iterator[None]:
    """Turn the errors of a database into one line.

    Args:
        name: what the user knows the database by, without a password.
        also: other errors that it may cause here.

    Raises:
        ValueError: instead of each of them.
    """
    errors: tuple[type[Exception], ...] = (SQLAlchemyError, OptunaError, sqlite3.Error, *also)
    try:
        yield
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None) or "its driver"
        raise ValueError(f"storage={name}: {driver} is missing: pip install {driver}") from error
    except errors as error:
        cause = error.__cause__ if isinstance(error, OptunaError) and error.__cause__ else error
        message = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        raise ValueError(f"storage={name}: {message}") from error


def hide_password(url: str) -> str:
    """Return a database's URL without its password.

    Raises:
        ValueError: if it isn't a URL.
    """
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        shown = url.rpartition("@")[2]  # what stands before it may be a password
        raise ValueError(f"storage={shown}: must be a URL like postgresql://user@host/database") from None


def quiet() -> None:
    """Keep Optuna's messages about itself from the terminal."""
    optuna.logging.set_verbosity(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    warnings.filterwarnings("ignore", message="The distribution is specified by")  # a range that steps don't divide
    warnings.filterwarnings("ignore", message="Some regimes for parameter")  # few trials: the page says so
