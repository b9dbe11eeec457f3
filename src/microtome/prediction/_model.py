"""What counts as a model, how one is run, and how one is found by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from microtome.errors import DependencyError, InvalidInputError, NotFoundError, UnknownNameError
from microtome.image import MultiscaleImage
from microtome.normalization import Normalization

__all__ = [
    "Preprocess",
    "copy_on",
    "load_model",
    "model_name",
    "running",
    "stain_density_model",
    "verify_channels",
    "verify_function",
]

Preprocess = Callable[[Any], Any]
"""From a batch as stored, (B, C, Y, X), to what the model sees."""


@contextmanager
def running(
    model: Any, preprocess: Preprocess | None = None, *, method: str | None = None
) -> Generator[Callable[[Any], Any]]:
    """Give a function from a stored batch to the model's output.

    Parameters
    ----------
    model
        A torch module, run in evaluation and inference mode on its own parameters' device, or any
        callable.
    preprocess
        What makes the model's input of a batch. Without it a callable gets the batch as it is, a
        torch module the same values as float32.
    method
        Method of the model to call instead of the model itself, where it has one.

    Raises
    ------
    InvalidInputError
        If it cannot be called.
    """
    function = getattr(model, method, model) if method else model
    if not callable(function) or isinstance(model, type):
        msg = f"a model is a torch module or a callable, got {model!r}"
        if isinstance(model, type):
            msg += "; make an instance of it"
        raise InvalidInputError(msg)
    verify_function(preprocess, "preprocess", "normalize")
    torch = sys.modules.get("torch")
    # Without torch in memory there is no module of torch.
    if torch is not None and isinstance(model, torch.nn.Module):
        from ._torch import running_module

        with running_module(model, function, raw=preprocess is not None) as run:
            yield run if preprocess is None else lambda batch: run(preprocess(batch))
    elif preprocess is None:
        yield function
    else:
        yield lambda batch: function(preprocess(batch))


def verify_function(function: Any, name: str, method: str) -> None:
    """Refuse what cannot be called, such as a normalization in place of its method.

    Parameters
    ----------
    function
        What was given; None is nothing.
    name
        Of the argument.
    method
        Of a normalization, that was meant.

    Raises
    ------
    InvalidInputError
        If it cannot be called.
    """
    if function is None or callable(function):
        return
    msg = f"{name} must be a function of a batch, got {type(function).__name__}"
    if callable(getattr(function, method, None)):
        msg += f"; pass its method {method}: {name}=normalization.{method}"
    raise InvalidInputError(msg)


def verify_channels(preprocess: Preprocess | None, channels: int, image: MultiscaleImage) -> None:
    """Refuse a normalization of other channels than a model is shown, before it is shown any.

    Raises
    ------
    InvalidInputError
        If `preprocess` is the method of a normalization that was fitted on another number.
    """
    owner = getattr(preprocess, "__self__", None)
    conversion = getattr(owner, "conversion", None)  # one of somebody else's has none
    if not isinstance(owner, Normalization) or conversion is None:
        return
    try:
        conversion(channels, image.dtype)
    except InvalidInputError as error:
        msg = f"preprocess is a normalization of other channels than {image.uri}: {error}"
        raise InvalidInputError(msg) from error


def copy_on(model: Any, device: Any) -> Any:
    """Return a copy of a model whose parameters are on a device.

    Raises
    ------
    InvalidInputError
        If it is no torch module, or torch refuses the device.
    """
    # Ours, that run another model, copy that one.
    own = getattr(model, "microtome_on", None)
    if callable(own):
        return own(device)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        msg = (
            f"devices are for torch modules, which can be copied to them; got {model!r}: spread "
            "several images with executor= instead"
        )
        raise InvalidInputError(msg)
    from ._torch import module_on

    return module_on(model, device)


def model_name(model: Any) -> str:
    """Return how a model is called in what we write: its dotted name in Python, or its own."""
    # Ours, that run another model or a file, say which.
    own = getattr(model, "microtome_name", None)
    if isinstance(own, str):
        return own
    named: Any = model.func if isinstance(model, partial) else model
    if not hasattr(named, "__qualname__"):
        named = type(named)
    return f"{getattr(named, '__module__', None) or 'builtins'}.{named.__qualname__}"


def load_model(spec: str) -> Any:
    """Find a model by name; nothing is unpickled.

    Parameters
    ----------
    spec
        ``"demo"`` for a `StainDensityModel`, or ``"package.module:attribute"``: a class is
        instantiated without arguments, any other callable is the model. Or the path of a file
        that ends in ``.onnx``, an `OnnxModel`.

    Raises
    ------
    InvalidInputError
        If `spec` is neither, or the attribute is not a model.
    NotFoundError
        If there is no such module or file.
    UnknownNameError
        If the module has no such attribute.
    DependencyError
        If torch or onnxruntime is needed and not installed.
    """
    if spec == "demo":
        return stain_density_model()()
    if spec.lower().endswith(".onnx"):
        from ._onnx import OnnxModel

        return OnnxModel(spec)
    module_name, colon, path = spec.partition(":")
    if not (colon and module_name and path):
        msg = f"a model is an .onnx file, 'demo' or 'package.module:attribute', got {spec!r}"
        raise InvalidInputError(msg)
    found = _imported(module_name, spec)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            msg = f"model {spec!r}: {module_name} has no {path!r}"
            raise UnknownNameError(msg) from error
    if isinstance(found, type):
        try:
            found = found()
        except TypeError as error:
            msg = f"model {spec!r}: {found.__name__}() cannot be made without arguments ({error}); name an instance or a class that can"
            raise InvalidInputError(msg) from error
    if not callable(found):
        msg = f"model {spec!r} is {found!r}, which cannot be called"
        raise InvalidInputError(msg)
    return found


def stain_density_model() -> Any:
    """Return the class `StainDensityModel`.

    Raises
    ------
    DependencyError
        If torch is not installed.
    """
    try:
        from ._stain import StainDensityModel
    except ImportError as error:
        msg = "the demo model needs torch; install microtome[torch]"
        raise DependencyError(msg) from error
    return StainDensityModel


def _imported(name: str, spec: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that exists but lacks one of its own imports is another story.
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            msg = f"model {spec!r}: no module {error.name!r}; install it or put its folder on PYTHONPATH"
            raise NotFoundError(msg) from error
        msg = f"model {spec!r}: {name} needs {error.name!r}, which is not installed"
        raise DependencyError(msg) from error
