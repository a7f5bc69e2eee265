"""Two devices on a machine that has none: tensors that say they are on one, compute on the CPU, and refuse to mix.

As on GPUs, an operation whose tensors are on different devices is an error, but for copies, for numbers without
dimensions, and for indices on the CPU. Numbers come out as on the CPU, to the last bit or nearly so: attention takes
another kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as setup

setup(rename="pretend")  # for the whole process: torch now takes this kind of device for its accelerator
ONE, TWO = torch.device("pretend:0"), torch.device("pretend:1")
COPIES = {"aten::copy_", "aten::_to_copy", "aten::to", "aten::set_"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}


class Placed(torch.Tensor):
    """A tensor on a device that is not there."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> Placed:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=device, requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Placed({self.inner}, {self.device})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy; use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(call, args, kwargs or {})


def computed(call: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation, on the CPU.

    Raises:
        RuntimeError: its tensors are on different devices.
    """
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    placed = [one for one in tensors if isinstance(one, Placed)]
    name, target = call._schema.name, kwargs.get("device")
    devices = {one.device for one in placed}
    if name not in COPIES:
        plain = any(not isinstance(one, Placed) and one.ndim for one in tensors)
        if len({one.device for one in placed if one.ndim}) > 1 or (placed and plain and name not in INDEXING):
            raise RuntimeError(f"{name}: tensors on different devices: {[(str(t.device), t.shape) for t in tensors]}")
        if name in INDEXING and not isinstance(args[0], Placed) and placed:
            raise RuntimeError(f"{name}: indices on {devices}, and what is indexed is on the CPU")
    if name == "aten::copy_":
        target = args[0].device

    def bare(value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu")
        return value.inner if isinstance(value, Placed) else value

    found = call(*tree_map(bare, args), **tree_map(bare, kwargs))
    if target is None:
        target = next((one.device for one in placed if one.ndim), placed[0].device if placed else "cpu")
    if torch.device(target).type == "cpu":
        return found
    if name.endswith("_") and not name.endswith("__") and isinstance(args[0], Placed):  # in place
        return args[0]
    place = torch.device(target)
    return tree_map(lambda value: Placed(value, place) if isinstance(value, torch.Tensor) else value, found)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(call, args, kwargs or {})


class _Made(TorchFunctionMode):
    """Tensors of Python values and arrays, which torch makes without asking a dispatch mode."""

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if call in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor):
            device = kwargs.pop("device", None)
            found = call(*args, **kwargs)
            return found if device is None else found.to(device)
        if call is torch.as_tensor:
            wanted = {name: kwargs[name] for name in ("device", "dtype") if kwargs.get(name) is not None}
            return args[0].to(**wanted) if wanted else args[0]
        if call is torch.Tensor.new_tensor:
            return torch.tensor(args[1], dtype=args[0].dtype).to(args[0].device)
        if call in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = args[1]
            parts = index if isinstance(index, tuple) else (index,)
            parts = tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts)
            return call(args[0], parts if isinstance(index, tuple) else parts[0], *args[2:])
        return call(*args, **kwargs)


@contextmanager
def two_devices() -> Iterator[None]:
    """Within this block tensors can be made on, and moved to, `ONE` and `TWO`."""
    with _Made(), _Mode():
        yield


class _Moving(AlignDevicesHook):  # type: ignore[misc]
    """Moves what a module is given to its device; its weights are there already."""

    def init_hook(self, module: Any) -> Any:
        return module


def spread(model: Any, layers: Any, second: int) -> Any:
    """A model whose embedding and first layers are on `ONE`, the layers from `second` on and the rest on `TWO`.

    Args:
        model: on the CPU; changed in place.
        layers: its list of layers.
        second: the first layer on `TWO`.
    """
    names = {id(module): name for name, module in model.named_modules()}
    where = {names[id(layer)]: ONE if number < second else TWO for number, layer in enumerate(layers)}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    where[names[id(embedding)]], where[names[id(head)]] = ONE, TWO
    parent = names[id(layers)].rpartition(".")[0]
    for name, _ in model.get_submodule(parent).named_children():
        full = f"{parent}.{name}"
        if not any(known == full or known.startswith(f"{full}.") for known in where):
            where[full] = TWO if "norm" in name or name == "ln_f" else ONE
    for name, module in model.named_modules():
        device = next((where[one] for one in where if name == one or name.startswith(f"{one}.")), ONE)
        for key, weight in list(module._parameters.items()):
            if weight is not None:
                module._parameters[key] = torch.nn.Parameter(Placed(weight.data, device), requires_grad=False)
        for key, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[key] = Placed(buffer, device)
    add_hook_to_module(model, _Moving(ONE, io_same_device=True))  # as `dispatch_model` of accelerate does
    for name, device in where.items():
        add_hook_to_module(model.get_submodule(name), _Moving(device))
    model.hf_device_map = where
    return model
