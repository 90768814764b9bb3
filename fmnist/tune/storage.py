"""The database that keeps the trials of a study, and what it says when it can't be used."""

import contextlib
import logging
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError, StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialHeartbeatModel
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.exc import SQLAlchemyError

DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)
HEARTBEAT = 10  # seconds between two signs of life of a running trial
GRACE = 60  # seconds without one, after which its process is taken for dead
OUTAGE = 40  # seconds without the server of the database that a trial survives: fewer than GRACE - HEARTBEAT
PATIENCE = 20  # seconds for a first connection to a server, or while another process writes to a database file
ATTEMPTS = 5  # to create the tables, which another machine may be doing at the same time


class Storage(RDBStorage):
    """A database whose heartbeat survives an error, and ends with the process."""

    lost_at: float | None = None
    """When its server was first found to be away."""

    def connect(self, dialect: Dialect, _: object, arguments: tuple[Any, ...], parameters: dict[str, Any]) -> Any:
        """Return a connection; wait for a server that is being started again."""
        while True:
            try:
                connection = dialect.connect(*arguments, **parameters)
                self.lost_at = None
                return connection
            except dialect.loaded_dbapi.OperationalError:
                self.lost_at = self.lost_at or time.monotonic()
                if time.monotonic() - self.lost_at > OUTAGE:
                    raise
                time.sleep(1)

    def record_heartbeat(self, trial_id: int) -> None:
        # A Ctrl-C while Optuna starts its thread leaves it without an end, and the process would wait for it forever.
        if not threading.main_thread().is_alive():
            raise SystemExit
        with contextlib.suppress(SQLAlchemyError, OptunaError):  # it is sent again after the interval
            super().record_heartbeat(trial_id)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        # Optuna never finds a trial whose process has died before its first heartbeat: so it gets one.
        for trial in self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,)):
            with self.scoped_session() as session:
                begun = TrialHeartbeatModel.where_trial_id(trial._trial_id, session)
            if begun is None:
                self.record_heartbeat(trial._trial_id)
        return super()._get_stale_trial_ids(study_id)


def open_storage(url: str, stale: Callable[[Study, FrozenTrial], None]) -> Storage:
    """Return the database with a URL.

    Args:
        url: as SQLAlchemy takes it.
        stale: is called with each trial whose heartbeat has stopped for GRACE seconds.
    """
    parsed = make_url(url)
    kind = parsed.get_backend_name()
    # pool_pre_ping: a connection that a server has closed is replaced before it is used.
    options: dict[str, Any] = {} if kind == "sqlite" else {"pool_pre_ping": True}
    argument = {"sqlite": "timeout", "postgresql": "connect_timeout"}.get(kind)
    if argument and argument not in parsed.query:
        options["connect_args"] = {argument: PATIENCE}
    for attempt in range(ATTEMPTS):
        try:
            storage = Storage(
                url, options, heartbeat_interval=HEARTBEAT, grace_period=GRACE, heartbeat_stale_trial_callback=stale
            )
            if kind != "sqlite":
                event.listen(storage.engine, "do_connect", storage.connect)
            return storage
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
        way = "`make extras` installs it" if driver == "psycopg" else f"pip install {driver}"
        raise ValueError(f"storage={name}: {driver} is missing: {way}") from error
    except Exception as error:
        cause = database_error(error) or error
        if not isinstance(cause, errors):
            raise
        if isinstance(cause, OptunaError) and cause.__cause__:
            cause = cause.__cause__
        message = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        raise ValueError(f"storage={name}: {message}") from error


def database_error(error: BaseException | None) -> BaseException | None:
    """Return the error of a database that has led to another one: Optuna fails again where it handles some of them."""
    while error is not None and not isinstance(error, DATABASE_ERRORS):
        error = error.__cause__ or error.__context__
    return error


def hide_password(url: str) -> str:
    """Return a database's URL without its password.

    Raises:
        ValueError: if it isn't a URL.
    """
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        shown = url.rpartition("@")[2]  # what stands before it may be a password
        raise ValueError(f"storage={shown}: must be a URL like postgresql+psycopg://user@host/database") from None


def quiet() -> None:
    """Keep Optuna's messages about itself from the terminal."""
    optuna.logging.set_verbosity(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    warnings.filterwarnings("ignore", message="The distribution is specified by")  # a range that steps don't divide
    warnings.filterwarnings("ignore", message="Some regimes for parameter")  # few trials: the page says so
