"""Serve a page that classifies pictures, and predictions as JSON."""

import errno
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from omegaconf import DictConfig, OmegaConf

from fmnist.config import logs
from fmnist.config.errors import explain_out_of_memory, keys_as_typed
from fmnist.config.overrides import program
from fmnist.config.restore import Restored, build_datamodule_of, restore
from fmnist.config.settings import read_settings
from fmnist.data.idx import DataUnavailableError
from fmnist.data.image_files import pillow_warnings_ignored
from fmnist.data.sources import check_root
from fmnist.demo.samples import Sample, pick_samples
from fmnist.evaluation.calibration import NOT_CALIBRATED
from fmnist.evaluation.inspection import network_name
from fmnist.export.files import PACKAGES, need
from fmnist.runs.latest import checkpoint_file

log = logging.getLogger(__name__)

EXTRA = "demo"
BACKLOG = 256  # connections that wait to be accepted
MOST_CONNECTIONS = 256  # more get the status 503
SHUTDOWN_SECONDS = 3  # for requests in progress, after Ctrl-C
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ANY_ADDRESS = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class Settings:
    """The keys of conf/demo.yaml, and what they may be."""

    run: str | None
    checkpoint: str | None
    host: str
    port: Annotated[int, Ge(0), Le(65535)]
    coverage: Annotated[float, Gt(0), Lt(1)] | None
    max_image_mb: Annotated[int, Ge(1)]
    max_images: Annotated[int, Ge(1)]
    max_request_mb: Annotated[int, Ge(1)]
    data_root: str | None


@explain_out_of_memory("close other programs, or try another machine")
@keys_as_typed()
def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (every command gets it)
    """Serve the page until Ctrl-C.

    Raises:
        ValueError: if a package is missing, the address can't be listened on, the checkpoint is missing or damaged, or
            its network can't be exported.
    """
    logs.to_terminal()
    options = read_settings(Settings, cfg)
    need(program("demo"), "fastapi", "uvicorn", "python_multipart", *PACKAGES["onnx"], extra=EXTRA)
    if options.run is None and options.checkpoint is None:
        raise ValueError(f"give a run: {program('demo')} run=latest")
    with bind(options.host, options.port) as listener:
        file = checkpoint_file(options.run, options.checkpoint)
        serve(file, restore(file, "cpu", options.data_root), options, listener)


def serve(file: Path, restored: Restored, options: Settings, listener: socket.socket) -> None:
    """Answer requests on a bound socket, until a signal ends that."""
    import uvicorn

    from fmnist.demo.app import Demo, create_app
    from fmnist.demo.network import OnnxPredictor
    from fmnist.demo.uploads import Limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for each image, as several images are classified at once
    predictor = OnnxPredictor(file, restored)
    if predictor.calibrator is None:
        log.warning("the probabilities are %s", NOT_CALIBRATED)
    samples = find_samples(restored, file, options)
    limits = Limits(options.max_image_mb, options.max_images, options.max_request_mb)
    coverage = None if predictor.calibrator is None else options.coverage
    folder = file.absolute().parent
    name = folder.parent.name if folder.name == "checkpoints" else file.name
    with ThreadPoolExecutor(threads, "classify") as pool, pillow_warnings_ignored():
        demo = Demo(predictor, name, network_name(restored.classifier.network), samples, limits, coverage, pool)
        app = create_app(demo, allowed_hosts(options.host))
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,  # errors of requests are logged by the application
            access_log=False,
            backlog=BACKLOG,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            server_header=False,
            headers=[("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")],
        )
        listener.listen(BACKLOG)
        log.info("demo: %s  (Ctrl-C ends it)", url(options.host, listener))
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address, and doesn't listen yet.

    Raises:
        ValueError: naming the key.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"host={host}: must be an address or a name of this machine") from error
    listener = socket.socket(family, kind, protocol)
    if os.name == "posix":  # a port is free at once when the last server has ended
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"port={port}: is in use; port=0 takes a free one") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(f"host={host}: must be an address or a name of this machine") from error
        raise ValueError(f"port={port}: {error.strerror}") from error
    return listener


def url(host: str, listener: socket.socket) -> str:
    """Return the address of the page."""
    shown = "127.0.0.1" if host in ANY_ADDRESS else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def allowed_hosts(host: str) -> list[str]:
    """Return the names by which the server may be reached; any, with a warning, where it listens on all addresses."""
    if host in ANY_ADDRESS:
        log.warning("host=%s: everyone in the network of this machine can use the page", host)
        return ["*"]
    return [*LOOPBACK, f"[{host}]" if ":" in host else host.lower()]


def find_samples(restored: Restored, file: Path, options: Settings) -> list[Sample]:
    """Return test images to pick from; none where the data aren't here, unless the user has named their folder.

    Raises:
        ValueError: if they aren't in the folder that the user has named.
    """
    try:
        if options.data_root is None:
            check_root("data_root", OmegaConf.select(restored.config, "data.root"))
        datamodule = build_datamodule_of(restored, file)
        datamodule.setup()
    except DataUnavailableError as error:
        if options.data_root is not None:
            raise
        log.warning("no test images to pick from: %s", error)
        return []
    return pick_samples(*datamodule.splits["test"], restored.dataset.classes)
