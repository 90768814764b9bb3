"""Where the trials of a study are kept: a database file in its folder, or a database that several machines share."""

import contextlib
import logging
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

Stale = Callable[[Study, FrozenTrial], None]

HEARTBEAT, GRACE = 60, 180  # seconds: a worker on another machine that is silent for so long is taken for dead
PATIENCE = 20  # seconds, for another worker that is writing
ATTEMPTS = 5  # to make the tables of a database, which another worker may be doing


def quiet() -> None:
    """Keeps what Optuna says about itself from the terminal."""
    optuna.logging.set_verbosity(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    warnings.filterwarnings("ignore", message="The distribution is specified by")  # a range that steps don't divide
    warnings.filterwarnings("ignore", message="Some regimes for parameter")  # few trials: the page says it is a guess


def open_file(file: Path) -> RDBStorage:
    """The database in a file, which is made where there is none.

    Raises:
        ValueError: if it is no database, a damaged one, or somebody else's, which it stays.
    """
    if file.exists():
        _check_file(file)
    with explained(str(file), RuntimeError):  # as of tables of another version of Optuna
        return RDBStorage(f"sqlite:///{file}", {"connect_args": {"timeout": PATIENCE}})


def open_url(url: str, stale: Stale) -> RDBStorage:
    """A database by its URL.

    Args:
        url: as SQLAlchemy knows it.
        stale: is told of each trial whose worker has fallen silent.

    Raises:
        ValueError: if it can't be reached.
    """
    with explained(shown(url), RuntimeError):  # as of tables of another version of Optuna
        for attempt in range(ATTEMPTS):
            try:
                return RDBStorage(
                    url, heartbeat_interval=HEARTBEAT, grace_period=GRACE, heartbeat_stale_trial_callback=stale
                )
            except (SQLAlchemyError, OptunaError) as error:
                if attempt == ATTEMPTS - 1 or "exists" not in str(error):
                    raise
                time.sleep(0.2 * 2**attempt)
    raise AssertionError


@contextlib.contextmanager
def explained(name: str, *also: type[Exception]) -> Iterator[None]:
    """Turns a database's errors into one line of the person's language.

    Args:
        name: what the person knows it by.
        also: other errors that come of it here.

    Raises:
        ValueError: in the place of each of them.
    """
    kinds: tuple[type[Exception], ...] = (SQLAlchemyError, OptunaError, sqlite3.Error, *also)
    try:
        yield
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None) or "its driver"
        raise ValueError(f"storage={name}: {driver} is missing: pip install {driver}") from error
    except kinds as error:
        cause = error.__cause__ if isinstance(error, OptunaError) and error.__cause__ else error
        raise ValueError(
            f"storage={name}: {str(getattr(cause, 'orig', None) or cause).strip().splitlines()[0]}"
        ) from error


def shown(url: str) -> str:
    """The URL without its password.

    Raises:
        ValueError: if it isn't one.
    """
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        raise ValueError(f"storage={url}: it should be a URL: postgresql://user@host/database") from None


def _check_file(file: Path) -> None:
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", timeout=PATIENCE, uri=True)
        ) as db:
            tables = {name for (name,) in db.execute("select name from sqlite_master where type = 'table'")}
            damage = db.execute("pragma quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise ValueError(f"{file}: {error}; nothing was changed in it") from error
    if damage != "ok":
        raise ValueError(f"{file} is damaged: {' '.join(damage.split())}")
    if tables and "trials" not in tables:
        raise ValueError(f"{file} is a database, but not one of a study")
