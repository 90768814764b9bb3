"""The page, and predictions as JSON."""

import asyncio
import base64
import hashlib
import io
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fmnist.config.validation import allowed
from fmnist.data.image_files import read_picture
from fmnist.demo import responses
from fmnist.demo.network import OnnxPredictor
from fmnist.demo.responses import Health, Info, Problem
from fmnist.demo.samples import Sample
from fmnist.demo.uploads import FORM, Limits, Upload, read_uploads
from fmnist.plotting.frame import render
from fmnist.plotting.tiles import data_url
from fmnist.predict.formats import Prediction
from fmnist.predict.images import fit
from fmnist.predict.preparation import Prepared

log = logging.getLogger(__name__)
T = TypeVar("T")

PAGE = Path(__file__).with_name("page.html")
FILE: dict[str, Any] = {"type": "string", "format": "binary"}
FORM_SCHEMA = {"type": "object", "properties": {"file": {"type": "array", "items": FILE}}, "required": ["file"]}
BODY = {"required": True, "content": {FORM: {"schema": FORM_SCHEMA}, "image/*": {"schema": FILE}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "A damaged form"},
    408: {"model": Problem, "description": "A request that doesn't arrive"},
    413: {"model": Problem, "description": "A file, a request or a number of files that is too large"},
    415: {"model": Problem, "description": "A request that is neither an image nor a form"},
    422: {"model": Problem, "description": "A file that can't be read or shows no item, or an invalid parameter"},
}
PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}}},
    404: {"model": Problem, "description": "A number that is too large"},
    422: {"model": Problem, "description": "No number"},
}


@dataclass(frozen=True)
class Demo:
    """Answers requests; pictures are read and classified in a pool of threads, so that the server stays responsive.

    Args:
        predictor: which classifies.
        run: the name of the run.
        network_name: what its network is called.
        samples: images to pick.
        limits: of a request.
        coverage: of the prediction sets, unless a request says otherwise; None for none.
        pool: of threads.
    """

    predictor: OnnxPredictor
    run: str
    network_name: str
    samples: Sequence[Sample]
    limits: Limits
    coverage: float | None
    pool: ThreadPoolExecutor

    async def in_pool(self, call: Callable[..., T], *arguments: Any) -> T:
        """Return what a call returns in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, partial(call, *arguments))

    async def predict(
        self,
        request: Request,
        top: Annotated[int, Query(ge=1, description="number of classes in the response")] = 3,
        coverage: Annotated[float | None, Query(gt=0, lt=1, description="of prediction sets, from 0 to 1")] = None,
        preview: Annotated[bool, Query(description="also return what the network sees")] = False,
        explain: Annotated[bool, Query(description="also return what speaks for the most likely class")] = False,
    ) -> list[responses.Prediction]:
        """Classify the images of a form (multipart/form-data), or the one whose bytes are the body of the request.

        Pictures are prepared as predict.py prepares them. Each image gets one prediction, in their order. If one of
        them can't be read, none is classified.
        """
        if coverage is not None and self.predictor.calibrator is None:
            raise HTTPException(422, f"coverage={coverage}: must be left out, as the network is not calibrated")
        uploads = await read_uploads(request, self.limits)
        images = await self._read_all(uploads)
        found = await self.in_pool(
            self.predictor.predictions, images, min(top, len(self.predictor.dataset.classes)), coverage or self.coverage
        )
        return [await self._response(prediction, preview=preview, explain=explain) for prediction in found]

    async def _response(self, prediction: Prediction, *, preview: bool, explain: bool) -> responses.Prediction:
        """Return a prediction as it is answered, with the pictures that are asked for."""
        content: dict[str, Any] = {"file": prediction.file, "inverted": prediction.inverted, **prediction.marks}
        content["top"] = [{"name": name, "probability": round(p, 6)} for name, p in prediction.probabilities.items()]
        if preview:
            content["network_input"] = data_url(prediction.pixels)
        if explain:
            content["method"], picture = await self.in_pool(self.predictor.explain, prediction.pixels, prediction.label)
            content["attribution"] = data_url(picture)
        return responses.Prediction.model_validate(content)

    async def _read_all(self, uploads: Sequence[Upload]) -> list[tuple[str, Prepared]]:
        """Return the name and the network's input for each image file.

        Raises:
            HTTPException: with the reasons why files can't be read.
        """
        jobs = (self.in_pool(self._read, upload) for upload in uploads)
        found, reasons = [], []
        for (name, _), result in zip(uploads, await asyncio.gather(*jobs, return_exceptions=True), strict=True):
            if isinstance(result, ValueError):
                reasons.append(f"{name}: {result}")
            elif isinstance(result, BaseException):
                raise result
            else:
                found.append((name, result))
        if reasons:
            raise HTTPException(422, "; ".join(reasons))
        return found

    def _read(self, upload: Upload) -> Prepared:
        dataset = self.predictor.dataset
        return fit(read_picture(io.BytesIO(upload.content), max(dataset.image_shape)), dataset)

    async def page(self) -> Response:
        """Return the page."""
        return html(PAGE.read_text(encoding="utf-8"))

    async def health(self) -> Health:
        """Return that the server responds."""
        return Health(run=self.run, dataset=self.predictor.dataset.name)

    async def info(self) -> Info:
        """Return what the network is and what requests may be."""
        dataset, limits = self.predictor.dataset, self.limits
        return Info(
            run=self.run,
            network=self.network_name,
            dataset=dataset.name,
            classes=list(dataset.classes),
            image_shape=dataset.image_shape,
            calibrated=self.predictor.calibrator is not None,
            coverage=self.coverage,
            max_image_mb=limits.image_mb,
            max_images=limits.images,
            max_request_mb=limits.request_mb,
            samples=[sample.label for sample in self.samples],
        )

    async def sample(self, number: int) -> Response:
        """Return a test image as PNG."""
        if not 0 <= number < len(self.samples):
            raise HTTPException(404, f"there are {len(self.samples)} test images")
        url = data_url(self.samples[number].pixels)
        return Response(base64.b64decode(url.partition(",")[2]), media_type="image/png")


def create_app(demo: Demo, hosts: Sequence[str]) -> FastAPI:
    """Return the application.

    Args:
        hosts: names and addresses by which it is reached. Requests to others are refused, so that no page of a stranger
            reaches it by a name of its own (DNS rebinding).
    """
    about = f"{demo.network_name}, trained on {demo.predictor.dataset.name}: run {demo.run}"
    app = FastAPI(title="fmnist", description=about, version="1", docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_exception_handler(RequestValidationError, refuse)
    app.add_exception_handler(Exception, fail)
    app.add_api_route("/", demo.page, include_in_schema=False)
    app.add_api_route("/docs", partial(docs, app), include_in_schema=False)
    app.add_api_route(
        "/predict",
        demo.predict,
        methods=["POST"],
        response_model=list[responses.Prediction],
        response_model_exclude_none=True,
        responses=PROBLEMS,
        openapi_extra={"requestBody": BODY},
    )
    app.add_api_route("/info", demo.info, response_model=Info)
    app.add_api_route("/samples/{number}", demo.sample, responses=PNG, response_class=Response)
    app.add_api_route("/health", demo.health, response_model=Health)
    return app


async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Return one line for invalid parameters, in place of pydantic's list."""
    assert isinstance(error, RequestValidationError)
    lines = [
        f"{each['loc'][-1]}={each.get('input')}: must {allowed(each['msg']).partition(', unable')[0]}"
        for each in error.errors()
    ]
    return JSONResponse({"detail": "; ".join(lines)}, status_code=422)


async def fail(request: Request, error: Exception) -> JSONResponse:
    """Log an error of the server, and return that there was one."""
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": f"error of the server: {type(error).__name__}"}, status_code=500)


async def docs(app: FastAPI, request: Request) -> Response:
    """Return the OpenAPI description as a page. FastAPI's own one loads its scripts from elsewhere."""
    return html(render("demo/docs.html", api=app.openapi(), url=str(request.base_url)))


def html(page: str) -> Response:
    """Return a page that may load nothing from elsewhere, and run no script but its own."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    policy = {
        "default-src": "'none'",
        "img-src": "'self' blob: data:",
        "style-src": "'unsafe-inline'",
        "script-src": " ".join(hashes) or "'none'",
        "connect-src": "'self'",
        **dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'"),
    }
    header = "; ".join(f"{name} {value}" for name, value in policy.items())
    return HTMLResponse(page, headers={"content-security-policy": header, "cache-control": "no-cache"})
