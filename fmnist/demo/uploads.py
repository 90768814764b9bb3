"""Images from the body of a request, within limits that hold while it arrives."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import NamedTuple

from fastapi import HTTPException, Request
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

MB = 10**6
SECONDS = 60.0
"""Longest time in which a request must arrive."""
NAME_LENGTH = 200  # characters of a file's name
FORM = "multipart/form-data"
HINT = f"must be image/jpeg, image/png, ... for the bytes of one image, or {FORM} for several"


class Upload(NamedTuple):
    """An image file in memory."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Limits:
    """The largest requests that are answered.

    Args:
        image_mb: of one image file, in megabytes.
        images: number of images in a request.
        request_mb: of the body of a request, in megabytes.
    """

    image_mb: int
    images: int
    request_mb: int


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """Return the images of a request, one or more. Nothing is written to the disk.

    Raises:
        HTTPException: 413 if the request is too large, 415 if it is of another type, 400 if it is damaged, 408 if it
            doesn't arrive in time, 422 if it holds no image.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(SECONDS):
            if kind == FORM:
                uploads = await _form_files(request, limits)
            elif kind.startswith("image/") or kind == "application/octet-stream":
                largest = min(limits.image_mb, limits.request_mb)
                uploads = [Upload("image", b"".join([chunk async for chunk in _limited(request, largest)]))]
            else:
                raise HTTPException(415, f"content-type={kind}: {HINT}")
    except TimeoutError as error:
        raise HTTPException(408, f"the request did not arrive within {SECONDS:g} seconds") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the request was not complete") from error
    if not uploads:
        raise HTTPException(422, "there is no image file in the form: curl -F file=@photo.jpg")
    for name, content in uploads:
        if len(content) > limits.image_mb * MB:
            raise HTTPException(413, f"{name}: must have at most {limits.image_mb} MB")
    return uploads


async def _limited(request: Request, megabytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request as it arrives.

    Raises:
        HTTPException: as soon as it is known to be too large.
    """
    announced, count = request.headers.get("content-length", ""), 0
    too_large = HTTPException(413, f"the request must have at most {megabytes} MB")
    if announced.isdecimal() and int(announced) > megabytes * MB:
        raise too_large
    async for chunk in request.stream():
        count += len(chunk)
        if count > megabytes * MB:
            raise too_large
        yield chunk


async def _form_files(request: Request, limits: Limits) -> list[Upload]:
    """Return the files of a form, whatever its fields are called.

    Raises:
        HTTPException: if the form is too large or damaged.
    """
    stream = _limited(request, limits.request_mb)
    parser = MultiPartParser(request.headers, stream, max_files=limits.images, max_fields=limits.images)
    parser.spool_max_size = limits.request_mb * MB + 1  # all in memory
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(413 if error.message.startswith("Too many") else 400, error.message) from error
    try:
        files = [value for _, value in form.multi_items() if not isinstance(value, str)]
        return [Upload((file.filename or "image")[-NAME_LENGTH:], await file.read()) for file in files]
    finally:
        await form.close()
