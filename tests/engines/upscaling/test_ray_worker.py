import io

import numpy as np
from PIL import Image

from swise_engines.upscaling.ray import _Worker
from swise_engines.upscaling.upscaler import Upscaler


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_a_worker_cuts_pictures_into_tiles_though_its_model_came_as_bytes(small_network):
    model = small_network(radius=4)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    files = {model.name: model.read_bytes()}
    worker = _Worker(files, model.name, "onnxruntime", tile=32, threads=1)
    encoded = worker.upscale(png(image), ".png", 95)
    assert isinstance(encoded, bytes), encoded
    with Upscaler.open(model, runner="onnxruntime", tile=32) as upscaler:
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), upscaler(image))
