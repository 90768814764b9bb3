"""The JSON responses, as the OpenAPI description shows them."""

from typing import Annotated

from pydantic import BaseModel, Field


class ClassProbability(BaseModel):
    """A class and its probability."""

    name: Annotated[str, Field(serialization_alias="class")]
    probability: Annotated[float, Field(description="calibrated where the network is")]


class Prediction(BaseModel):
    """The prediction for one image."""

    file: Annotated[str, Field(description="its name in the form; image without a form")]
    inverted: Annotated[bool, Field(description="whether light and dark were exchanged for the network")]
    top: Annotated[list[ClassProbability], Field(description="the most likely classes, the first one first")]
    set: Annotated[
        list[str] | None, Field(description="prediction set: classes that hold the true one with probability coverage")
    ] = None
    unfamiliar: Annotated[
        bool | None, Field(description="whether the image is unlike the training images; not for older runs")
    ] = None
    network_input: Annotated[
        str | None, Field(description="with preview=true: what the network sees, a PNG as data URL")
    ] = None
    attribution: Annotated[
        str | None, Field(description="with explain=true: what speaks for the most likely class, a PNG as data URL")
    ] = None
    method: Annotated[
        str | None, Field(description="of the attribution: Grad-CAM with the name of its layer, or saliency")
    ] = None


class Problem(BaseModel):
    """Why a request is refused."""

    detail: str


class Health(BaseModel):
    """That the server responds."""

    status: str = "ok"
    run: str
    dataset: str


class Info(BaseModel):
    """What the network is, and what requests may be."""

    run: str
    network: str
    dataset: str
    classes: list[str]
    image_shape: Annotated[tuple[int, int, int], Field(description="channels, height, width")]
    calibrated: bool
    coverage: Annotated[float | None, Field(description="of the prediction sets, unless a request says otherwise")]
    max_image_mb: Annotated[int, Field(description="of one image, in megabytes")]
    max_images: Annotated[int, Field(description="in a request")]
    max_request_mb: Annotated[int, Field(description="of a request, in megabytes")]
    samples: Annotated[list[str], Field(description="the classes of the images at /samples/0, /samples/1, ...")]
