"""scripts/demo.py: the page's server, its JSON, and what it refuses."""

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import synthetic
import torch
from conftest import SCRIPTS, RunScript
from omegaconf import DictConfig
from PIL import Image

import fmnist
from fmnist.config.restore import Restored, restore
from fmnist.data.image_files import pillow_warnings_ignored
from fmnist.data.info import FASHION_MNIST, DatasetInfo
from fmnist.evaluation.inspection import attribution
from fmnist.export.graph import PixelsToProbabilities
from fmnist.models import CNN
from fmnist.plotting.tiles import overlay

pytest.importorskip("fastapi", reason="FastAPI is optional: pip install -e '.[demo]'")
pytest.importorskip("python_multipart", reason="python-multipart is optional: pip install -e '.[demo]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is optional: pip install -e '.[demo]'")
pytest.importorskip("httpx2", reason="FastAPI's test client needs it")
from fastapi.testclient import TestClient

from fmnist.demo import main as demo_main
from fmnist.demo import network as demo_network
from fmnist.demo import uploads
from fmnist.demo.app import Demo, create_app
from fmnist.demo.network import OnnxPredictor
from fmnist.demo.samples import pick_samples
from fmnist.demo.uploads import Limits

pytestmark = pytest.mark.extras

IMAGES, LABELS = synthetic.make(synthetic.TEST, seed=1, black=True)
CLASSES = FASHION_MNIST.classes
CORNERS = ([0, 0, -1, -1], [0, -1, 0, -1])  # black in images of the dataset
LIMITS = Limits(image_mb=1, images=3, request_mb=2)
CLIENTS = 64
HALF = "Content-Type: image/png\r\nContent-Length: 100\r\n\r\nhalf"
PATIENCE = 300  # seconds for a server to start


class Server(NamedTuple):
    """A running `demo.py`."""

    process: subprocess.Popen[str]
    address: str
    log: Path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """What the tests of this module share."""
    with ThreadPoolExecutor(2) as pool, pillow_warnings_ignored():
        yield SimpleNamespace(folder=tmp_path_factory.mktemp("demo"), pool=pool, predictor=None)


@pytest.fixture
def run(kept: SimpleNamespace, train: RunScript) -> Path:
    """A trained run, to be read only."""
    place: Path = kept.folder / "run"
    if not place.exists():
        data = synthetic.write(kept.folder / "data", black=True)
        shutil.copytree(train("test=false", f"data.root={data}").run, place)
    return place


@pytest.fixture
def demo(kept: SimpleNamespace, run: Path) -> Demo:
    """What answers with the network of the run."""
    if kept.predictor is None:
        file = run / "checkpoints" / "best.ckpt"
        kept.predictor = OnnxPredictor(file, restore(file, "cpu"))
    samples = pick_samples(IMAGES[:, None], LABELS, CLASSES)
    return Demo(kept.predictor, "run", "CNN", samples, LIMITS, 0.95, kept.pool)


def client_of(demo: Demo) -> TestClient:
    return TestClient(create_app(demo, demo_main.allowed_hosts("127.0.0.1")), base_url="http://127.0.0.1:8000")


@pytest.fixture
def client(demo: Demo) -> TestClient:
    return client_of(demo)


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(file, "PNG")
    return file.getvalue()


def pixels_of(url: str) -> np.ndarray[Any, Any]:
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def post(client: TestClient, content: bytes, **parameters: Any) -> Any:
    return client.post("/predict", content=content, headers={"content-type": "image/png"}, params=parameters)


def detail(response: Any) -> str:
    """The only thing that a refusal holds."""
    (reason,) = response.json().values()
    assert list(response.json()) == ["detail"]
    assert "\n" not in reason
    return str(reason)


def noise() -> np.ndarray[Any, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    pixels[CORNERS] = 0
    return pixels


# Predictions


def test_predictions_are_those_of_predict(client: TestClient, run: Path) -> None:
    pictures = [IMAGES[0].numpy(), 255 - IMAGES[1].numpy(), IMAGES[2].numpy()]
    files = [("file", (f"{number}.png", png(picture))) for number, picture in enumerate(pictures)]
    response = client.post("/predict", files=files, params={"top": 10, "coverage": 0.9})
    assert response.status_code == 200, response.text
    expected = fmnist.load(run, "cpu").predict([Image.fromarray(each) for each in pictures], coverage=0.9)
    for number, (found, prediction) in enumerate(zip(response.json(), expected, strict=True)):
        assert found.keys() == {"file", "inverted", "top", "set", "unfamiliar"}
        assert (found["file"], found["inverted"]) == (f"{number}.png", number == 1)
        probabilities = {each["class"]: each["probability"] for each in found["top"]}
        assert list(probabilities) == list(prediction.probabilities)
        assert probabilities == pytest.approx(dict(prediction.probabilities), abs=1e-5)
        assert {"set": found["set"], "unfamiliar": found["unfamiliar"]} == prediction.marks


def test_bytes_of_one_image_are_enough(client: TestClient) -> None:
    content = png(IMAGES[0].numpy())
    (form,) = client.post("/predict", files={"photo": ("a.png", content)}).json()
    (found,) = post(client, content).json()
    assert found == form | {"file": "image"}
    assert [len(post(client, content, top=top).json()[0]["top"]) for top in (1, 2, 99)] == [1, 2, 10]
    sizes = [len(post(client, content, coverage=coverage).json()[0]["set"]) for coverage in (0.01, 0.999)]
    assert sizes[0] == 1 < sizes[1]


def test_preview_is_the_network_input_and_explanation_its_grad_cam(client: TestClient, run: Path) -> None:
    picture = np.full((60, 90), 250, np.uint8)
    picture[10:50, 20:50] = 40  # a dark item beside the middle
    (found,) = post(client, png(picture), preview=True, explain=True).json()
    prepared = fmnist.load(run, "cpu").predict(Image.fromarray(picture)).pixels
    assert found["inverted"]
    assert np.array_equal(pixels_of(found["network_input"]), prepared[0].numpy())
    network = restore(run / "checkpoints" / "best.ckpt", "cpu").classifier.network
    label = torch.tensor([CLASSES.index(found["top"][0]["class"])])
    method, heat = attribution(network, FASHION_MNIST.normalise(prepared[None]), label)
    assert found["method"] == method
    assert method.startswith("Grad-CAM of ")
    assert np.array_equal(pixels_of(found["attribution"]), overlay(prepared, heat[0]).permute(1, 2, 0).numpy())


def test_image_unlike_the_training_images_is_marked(client: TestClient) -> None:
    found = [post(client, png(pixels)).json()[0]["unfamiliar"] for pixels in (IMAGES[0], noise())]
    assert found == [False, True]


def test_network_without_calibration_has_no_prediction_sets(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.predictor, "calibrator", None)
    client, content = client_of(dataclasses.replace(demo, coverage=None)), png(IMAGES[0].numpy())
    assert "set" not in post(client, content).json()[0]
    refused = post(client, content, coverage=0.9)
    assert refused.status_code == 422
    assert detail(refused) == "coverage=0.9: must be left out, as the network is not calibrated"


def test_graph_that_differs_from_the_network_is_not_served(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, session = run / "checkpoints" / "best.ckpt", demo_network.files.session

    def changed(file: Path) -> Any:
        run = session(file)
        return lambda images: (run(images)[0].flip(1), run(images)[1])

    monkeypatch.setattr(demo_network.files, "session", changed)
    with pytest.raises(ValueError, match=r"best\.ckpt: model\.onnx is not exported: .*the probabilities differ"):
        OnnxPredictor(file, restore(file, "cpu"))


def test_colour_images_of_another_size_and_many_classes() -> None:
    classes = tuple(f"class {number}" for number in range(12))
    dataset = DatasetInfo("Colours", classes, (3, 20, 24), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), fit="stretch")
    torch.manual_seed(0)
    model = CNN((3, 20, 24), 12, channels=[4]).eval()
    restored = Restored(DictConfig({}), SimpleNamespace(network=model), dataset, None, None)  # type: ignore[arg-type]
    predictor = OnnxPredictor(Path("best.ckpt"), restored)
    images = torch.randint(0, 256, (30, 3, 20, 24), dtype=torch.uint8)
    samples = pick_samples(images, torch.arange(30) % 12, classes)
    assert [sample.label for sample in samples] == list(classes)  # one of each, as 20 // 12 is one
    with ThreadPoolExecutor(1) as pool:
        client = client_of(Demo(predictor, "run", "CNN", samples, LIMITS, None, pool))
        content = client.get("/samples/5").content
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), images[5].permute(1, 2, 0).numpy())
        (found,) = post(client, content, top=12, explain=True).json()
    expected = PixelsToProbabilities(model, dataset, 1.0).run(images[5:6])[0][0].tolist()
    probabilities = {each["class"]: each["probability"] for each in found["top"]}
    assert probabilities == pytest.approx(dict(zip(classes, expected, strict=True)), abs=1e-5)
    assert pixels_of(found["attribution"]).shape == (20, 24, 3)


# What is refused

HUGE = b"P5 20000 20000 255 " + bytes(100)
REFUSED = {
    "nothing": (b"", "it is empty"),
    "text": (b"hello", "it is damaged, or not in a supported format"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG isn't supported; save it as PNG"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(64), "HEIC isn't supported; save it as JPEG or PNG"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is damaged, or not in a supported format"),
    "truncated": (png(np.arange(4000, dtype=np.uint8).reshape(50, 80))[:90], "it is truncated or damaged"),
    "bomb": (HUGE, "it has more than 89,478,485 pixels (a JPEG may have twice as many)"),
    "blank": (png(np.full((28, 28), 90, np.uint8)), "too little contrast: nothing stands out from the background"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_picture_that_predict_refuses_is_refused_with_the_same_reason(
    name: str, client: TestClient, run: Path, tmp_path: Path
) -> None:
    content, reason = REFUSED[name]
    response = post(client, content)
    assert response.status_code == 422
    assert detail(response).startswith(f"image: {reason}")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(detail(response).removeprefix("image: "))):
        fmnist.load(run, "cpu").predict(tmp_path / "a.png")


def test_every_unreadable_image_of_a_form_is_named(client: TestClient) -> None:
    files = [("file", (name, content)) for name, content in (("a.png", b""), ("b.png", png(IMAGES[0])), ("c", b"x"))]
    response = client.post("/predict", files=files)
    assert response.status_code == 422
    assert detail(response) == "a.png: it is empty; c: it is damaged, or not in a supported format"


@pytest.mark.parametrize(
    ("status", "reason", "options"),
    [
        (413, "the request must have at most 1 MB", {"content": bytes(10**6 + 1)}),
        (413, "the request must have at most 2 MB", {"files": [("file", bytes(10**6))] * 3}),
        (413, "b.png: must have at most 1 MB", {"files": {"file": ("b.png", bytes(10**6 + 1))}}),
        (413, "Too many files. Maximum number of files is 3.", {"files": [("file", b"x")] * 4}),
        (415, "content-type=text/plain: must be image/jpeg", {"headers": {"content-type": "text/plain"}}),
        (415, "content-type=: must be image/jpeg", {"headers": {"content-type": ""}}),
        (400, "Missing boundary in multipart.", {"headers": {"content-type": "multipart/form-data"}, "content": b"x"}),
        (400, "Invalid multipart data.", {"headers": {"content-type": "multipart/form-data; boundary=a"}}),
        (422, "there is no image file in the form", {"data": {"file": "x"}, "files": {}, "form": True}),
        (422, "top=0: must be greater than or equal to 1", {"params": {"top": 0}}),
        (422, "coverage=x: must be a number", {"params": {"coverage": "x"}}),
        (422, "coverage=1.0: must be less than 1", {"params": {"coverage": "1.0"}}),
    ],
)
def test_request_that_does_not_fit_gets_a_reason(
    status: int, reason: str, options: dict[str, Any], client: TestClient
) -> None:
    options = {"headers": {} if "files" in options else {"content-type": "image/png"}, **options}
    if options.pop("form", False):
        body = b'--a\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--a--\r\n'
        options = {"content": body, "headers": {"content-type": "multipart/form-data; boundary=a"}}
    elif "files" not in options:
        options.setdefault("content", b"no form")
    response = client.post("/predict", **options)
    assert (response.status_code, detail(response)[: len(reason)]) == (status, reason)


class Stream:
    """A request that arrives in chunks of 100 kB, and counts them; `count` of them, then nothing more comes."""

    def __init__(self, count: int, kind: str = "image/png") -> None:
        self.left, self.taken, self.sent = count, 0, []
        headers = [(b"host", b"127.0.0.1"), (b"content-type", kind.encode())]
        self.scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}

    async def receive(self) -> dict[str, Any]:
        if not self.left:
            await asyncio.sleep(60)
        self.left -= 1
        self.taken += 1
        return {"type": "http.request", "body": bytes(100_000), "more_body": True}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def status(self, app: Any) -> int:
        asyncio.run(app(self.scope, self.receive, self.send))
        return int(self.sent[0]["status"])


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=a"])
def test_endless_request_is_refused_while_it_arrives(kind: str, client: TestClient) -> None:
    stream = Stream(10**6, kind)
    assert stream.status(client.app) in (400, 413)
    assert stream.taken <= 21  # 2 MB and one more chunk


def test_request_that_stops_is_refused_after_a_while(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SECONDS", 0.2)
    assert Stream(3).status(client.app) == 408


def test_error_of_the_server_is_logged_and_told(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(demo.predictor, "_run", lambda _: 1 / 0)
    response = TestClient(client_of(demo).app, "http://localhost", raise_server_exceptions=False).post(
        "/predict", content=png(IMAGES[0]), headers={"content-type": "image/png"}
    )
    assert (response.status_code, detail(response)) == (500, "error of the server: ZeroDivisionError")
    (record,) = [record for record in caplog.records if record.name == "fmnist.demo.app"]
    assert record.getMessage() == "POST /predict"
    assert record.exc_info


def test_images_are_not_written_to_the_disk(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    rolled: list[object] = []
    monkeypatch.setattr(SpooledTemporaryFile, "rollover", rolled.append)
    big = Image.fromarray(IMAGES[0].numpy()).resize((1200, 1200), Image.Resampling.NEAREST)
    file = io.BytesIO()
    big.save(file, "BMP")
    client = client_of(dataclasses.replace(demo, limits=Limits(image_mb=2, images=1, request_mb=2)))
    response = client.post("/predict", files={"file": ("a.bmp", file.getvalue())})
    assert response.status_code == 200, response.text
    assert rolled == []


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:1", 200), ("evil.example", 400), ("127.0.0.1.evil", 400)],
)
def test_requests_to_other_hosts_are_refused(host: str, status: int, client: TestClient) -> None:
    assert client.get("/health", headers={"host": host}).status_code == status


# The other pages


def test_page_loads_nothing_from_elsewhere_and_runs_only_its_own_script(client: TestClient) -> None:
    response = client.get("/")
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    policy = response.headers["content-security-policy"]
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; ")
    for text in (response.text, client.get("/docs").text):
        assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//|@import|url\(""", text) == []
    assert "script-src 'none'" in client.get("/docs").headers["content-security-policy"]


def test_interface_is_described(client: TestClient) -> None:
    api, page = client.get("/openapi.json").json(), client.get("/docs").text
    assert api["paths"].keys() == {"/predict", "/info", "/samples/{number}", "/health"}
    operation = api["paths"]["/predict"]["post"]
    assert operation["requestBody"]["content"].keys() == {"multipart/form-data", "image/*"}
    assert [each["name"] for each in operation["parameters"]] == ["top", "coverage", "preview", "explain"]
    assert operation["responses"].keys() == {"200", "400", "408", "413", "415", "422"}
    for text in ("POST /predict", "GET /health", "coverage", "network_input", "http://127.0.0.1:8000/predict?top=2"):
        assert text in page
    (found,) = post(client, png(IMAGES[0]), preview=True, explain=True).json()
    assert found.keys() == api["components"]["schemas"]["Prediction"]["properties"].keys()


def test_two_test_images_of_each_class_can_be_picked(client: TestClient) -> None:
    info = client.get("/info").json()
    assert info["samples"] == [name for name in CLASSES for _ in range(2)]
    for number, label in enumerate(info["samples"]):
        (found,) = post(client, client.get(f"/samples/{number}").content, preview=True).json()
        index = [i for i, each in enumerate(LABELS.tolist()) if CLASSES[each] == label][number % 2]
        assert np.array_equal(pixels_of(found["network_input"]), IMAGES[index].numpy())
    assert client.get("/samples/20").status_code == 404
    assert client.get("/samples/-1").status_code == 404


def test_health(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "run": "run", "dataset": "data"}


# The command


def test_invalid_input_is_refused_in_one_line(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    run_script("demo", "port=0").assert_refused("give a run: python scripts/demo.py run=latest")
    run_script("demo", f"run={run}", "port=70000").assert_refused("port=70000: must be less than or equal to 65535")
    run_script("demo", f"run={run}", "coverage=1").assert_refused("coverage=1: must be less than 1")
    run_script("demo", f"run={run}", "host=nowhere.invalid").assert_refused("host=nowhere.invalid: must be an address")
    run_script("demo", f"run={run}", "host=192.0.2.1", "port=0").assert_refused("host=192.0.2.1: must be an address")
    run_script("demo", "run=nothing", "port=0").assert_refused("run=nothing")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = run_script("demo", f"run={run}", f"port={port}")
    refused.assert_refused(f"port={port}: is in use; port=0 takes a free one")
    assert not any(tmp_path.joinpath("outputs").glob("demo*"))


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "python_multipart", "onnxruntime"])
def test_missing_package_is_named(
    package: str, run_script: RunScript, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    refused = run_script("demo", f"run={run}", "port=0")
    refused.assert_refused(f'demo.py: needs {package}: `make extras` installs it, or pip install "fmnist[demo]"')


def test_server_on_all_addresses_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert demo_main.allowed_hosts("0.0.0.0") == ["*"]
    assert "host=0.0.0.0: everyone in the network of this machine can use the page" in caplog.text
    assert demo_main.allowed_hosts("My.Host")[-1] == "my.host"
    assert demo_main.allowed_hosts("fe80::1")[-1] == "[fe80::1]"


def test_server_without_test_images_says_so(run: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    file = run / "checkpoints" / "best.ckpt"
    restored = restore(file, "cpu", str(tmp_path / "none"))
    options = demo_main.Settings(str(run), None, "127.0.0.1", 0, None, 1, 1, 1, None)
    assert demo_main.find_samples(restored, file, options) == []
    assert "no test images to pick from: " in caplog.text
    with pytest.raises(ValueError, match="none"):
        demo_main.find_samples(restored, file, demo_main.Settings(*[None] * 8, data_root="x"))  # type: ignore[arg-type]


@contextlib.contextmanager
def serving(run: Path, log: Path, *arguments: str) -> Iterator[Server]:
    """Run `demo.py` on a free port, in an empty folder, until the test has ended."""
    command = [sys.executable, str(SCRIPTS / "demo.py"), f"run={run}", "port=0", *arguments]
    folder = log.with_suffix(".folder")
    folder.mkdir()
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True, cwd=folder) as process,
    ):
        try:
            end = time.monotonic() + PATIENCE
            while not (found := re.search(r"^demo: (http://\S+)", log.read_text(), re.MULTILINE)):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            yield Server(process, found[1], log)
        finally:
            process.kill()


async def load(address: str, content: bytes, seconds: float, clients: int = CLIENTS) -> list[float]:
    """Return the seconds of each request of clients that all ask at once, each as soon as it has its answer."""
    host, port = re.findall(r"//(.*):(\d+)", address)[0]
    head = f"POST /predict HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: image/png\r\n"
    request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    times: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.monotonic() < end:
            start = time.monotonic()
            writer.write(request)
            headers = await reader.readuntil(b"\r\n\r\n")
            (length,) = re.findall(rb"content-length: (\d+)", headers)
            answer = json.loads(await reader.readexactly(int(length)))
            assert headers.startswith(b"HTTP/1.1 200 "), answer
            assert len(answer[0]["top"]) == 3
            times.append(time.monotonic() - start)
        writer.close()

    end = time.monotonic() + seconds
    await asyncio.gather(*(client() for _ in range(clients)))
    return times


def report(times: list[float], seconds: float) -> str:
    cuts = statistics.quantiles(times, n=100)
    return (
        f"{CLIENTS} clients, {seconds:g} s: {len(times):,} requests, 0 errors, "
        f"{len(times) / seconds:.0f} per second, p50 {1000 * cuts[49]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms"
    )


def photo() -> bytes:
    """A picture of 300x300 pixels with a dark item, which has to be prepared."""
    item = Image.fromarray(255 - IMAGES[3].numpy()).resize((200, 200), Image.Resampling.BICUBIC)
    picture = Image.new("L", (300, 300), 255)
    picture.paste(item, (50, 50))
    return png(picture)


def test_server_answers_64_clients_at_once_and_ends_at_ctrl_c(run: Path, tmp_path: Path) -> None:
    with serving(run, tmp_path / "log.txt") as server:
        times = asyncio.run(load(server.address, png(IMAGES[0]), seconds=3))
        print(report(times, 3))
        assert len(times) >= CLIENTS
        host, port = re.findall(r"//(.*):(\d+)", server.address)[0]
        with socket.create_connection((host, int(port))) as unfinished:
            unfinished.sendall(f"POST /predict HTTP/1.1\r\nHost: {host}\r\n{HALF}".encode())
            time.sleep(0.5)
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(30) == 130
        lines = server.log.read_text().splitlines()
        assert lines[-1] == f"demo: {server.address}  (Ctrl-C ends it)"
        assert len(lines) == 2  # and where the test images are from
    assert not any((tmp_path / "log.folder").iterdir())


@pytest.mark.slow  # a minute
@pytest.mark.parametrize("content", [png(IMAGES[0]), photo()], ids=["test image", "photo"])
def test_server_answers_64_clients_for_a_minute(content: bytes, run: Path, tmp_path: Path) -> None:
    with serving(run, tmp_path / "log.txt") as server:
        times = asyncio.run(load(server.address, content, seconds=60))
    print(report(times, 60))
    assert len(times) >= 5 * CLIENTS
