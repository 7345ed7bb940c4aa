"""Networks that a user's function makes, brought to one form: a plain fp32 torch module."""

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from swise_deploy.errors import InputError, first_line

logger = logging.getLogger(__name__)


def call_factory(spec: str) -> nn.Module:
    """Import and call "package.module:factory", and unwrap what it gives.

    Modules in the working folder are found too. DataParallel and torch.compile are taken off, half
    and double precision become fp32, both with a warning.

    Raises:
        InputError: It does not import, cannot be called without arguments, fails, or gives no torch
            module, or a scripted one.
    """
    module = _call(spec)
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"{spec} gives a scripted module, whose code cannot be traced again. Give the module "
            "before torch.jit.script or torch.jit.trace"
        )
    if not isinstance(module, nn.Module):
        raise InputError(f"{spec} gave a {type(module).__name__}; expected a torch.nn.Module")
    return _plain(module, spec)


def _call(spec: str) -> object:
    module_name, _, factory_name = spec.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        factory: Callable[[], object] = getattr(importlib.import_module(module_name), factory_name)
    except Exception as error:  # the user's code raises anything when it is imported
        raise InputError(
            f"cannot import {spec}: {first_line(error)}. Expected package.module:factory, with the "
            "package installed or in the working folder"
        ) from error
    finally:
        sys.path.remove(folder)
    try:
        return factory()
    except TypeError as error:
        raise InputError(
            f"{spec} cannot be called without arguments: {error}. Give a function that takes none"
        ) from error
    except Exception as error:  # the user's code
        raise InputError(
            f"{spec} fails with {type(error).__name__}: {first_line(error)}. Expected a function "
            "that gives a torch module"
        ) from error


def _plain(module: nn.Module, spec: str) -> nn.Module:
    """Take wrappers off, and bring floating-point tensors to fp32 on the CPU."""
    inner = module
    while wrapped := _wrapped(inner):
        inner = wrapped
    if inner is not module:
        logger.warning(
            "%s gives a %s; the %s in it is used",
            spec,
            type(module).__name__,
            type(inner).__name__,
        )
    kinds = {
        str(tensor.dtype).removeprefix("torch.")
        for tensor in inner.state_dict().values()
        if tensor.is_floating_point() and tensor.dtype != torch.float32
    }
    if kinds:
        logger.warning("%s has weights in %s; converted to float32", spec, ", ".join(sorted(kinds)))
    return inner.float().cpu()


def _wrapped(module: nn.Module) -> nn.Module | None:
    parallel = isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    inner = getattr(module, "module" if parallel else "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else None
