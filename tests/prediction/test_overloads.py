"""What `predict` says that it returns: one image of one, a dict of several, with the same keywords."""

from __future__ import annotations

import inspect
from typing import get_overloads, get_type_hints

import numpy as np
import pytest

from microtome.image import MultiscaleImage
from microtome.prediction import predict
from microtome.prediction._predict import Options


def test_the_overloads_take_the_keywords_of_the_function():
    own = get_type_hints(predict)
    keywords = {
        name: own[name]
        for name, parameter in inspect.signature(predict).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert get_type_hints(Options) == keywords
    returned = [get_type_hints(overload)["return"] for overload in get_overloads(predict)]
    assert returned == [MultiscaleImage, dict[str, MultiscaleImage], MultiscaleImage]


@pytest.mark.parametrize("several", [list, tuple, dict])
def test_several_images_come_back_as_a_dict(stored, tmp_path, several):
    images = {"a": stored(shape=(1, 20, 30), name="a"), "b": stored(shape=(1, 20, 30), name="b")}
    given = images if several is dict else several(images.values())
    made = predict(np.negative, given, tmp_path / "out", tile_size=16, overlap=2)
    assert type(made) is dict
    assert list(made) == ["a", "b"]
    assert all(type(image) is MultiscaleImage for image in made.values())
    # An image is a mapping of its levels, and still one image.
    one = predict(np.negative, images["a"], tmp_path / "one", tile_size=16, overlap=2)
    assert type(one) is MultiscaleImage
