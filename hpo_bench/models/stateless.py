"""A module called with other values than its own, and what one module must have in common with
another for that.

Values are known by their place: the path of the layer and the name in it, ``layers.0.weight``. The
state of a module is
all that a forward pass may change and the next one may read: its buffers, and tensors that are
plain attributes."""

from __future__ import annotations

import functools
import math
import operator
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

_INTERNAL = set(nn.Module().__dict__) - {"training"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
DEPTH = 12  # how far into the parts of the parts of a value two modules are compared
_PLAIN = (str, bytes, bool, complex, type, torch.dtype, torch.device, types.NoneType)


class Stateless:
    """A module as a function of its parameters and its state, in place of its own ones.

    As `torch.func.functional_call`, which does not tell what became of a buffer that the forward
    pass assigned anew, and costs a small module a tenth of its time. To be made again when the
    module has other layers or tensors.

    Attributes:
        names: every place of a parameter or of the state, and the first place of the same tensor:
            tied ones have one name. A submodule that is used twice has its places once.
        state: the buffers and tensor attributes, by place.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._layers = list(module.named_modules())
        self._held = {
            path: [(held, dict(held)) for held in _contents(layer)] for path, layer in self._layers
        }
        self._hooks = [(held, dict(held)) for _, layer in self._layers for held in _hooks(layer)]
        self.state = self._read_state()
        first: dict[int, str] = {}
        self.names: dict[str, str] = {}
        self._slots: list[tuple[dict[str, Any], str, str]] = []
        for path, layer in self._layers:
            for held in (layer._parameters, layer._buffers, layer.__dict__):
                for name, value in held.items():
                    if isinstance(value, Tensor):
                        place = at(path, name)
                        self.names[place] = first.setdefault(id(value), place)
                        self._slots.append((held, name, self.names[place]))

    def __call__(
        self, values: Mapping[str, Tensor], function: Callable[..., Any], *arguments: Any
    ) -> tuple[Any, dict[str, Tensor]]:
        """Call a function of the module.

        Args:
            values: for each of `names`.
            function: called with the module and the arguments.

        Returns:
            What the function returns, and the state after it: of buffers that were changed in
            place, and of those that were assigned anew.
        """
        before = [held[name] for held, name, _ in self._slots]
        try:
            for held, name, key in self._slots:
                held[name] = values[key]
            result = function(self.module, *arguments)
            return result, {place: value.detach() for place, value in self._read_state().items()}
        finally:
            for (held, name, _), value in zip(self._slots, before, strict=True):
                held[name] = value

    def _read_state(self) -> dict[str, Tensor]:
        found = {}
        for path, layer in self._layers:
            for held in (layer._buffers, layer.__dict__):
                for name, value in held.items():
                    if isinstance(value, Tensor):
                        found[at(path, name)] = value
        return found

    def holds(self) -> bool:
        """Whether all that the layers hold is as it was, but for the values inside tensors."""
        held = all(_same(now, then) for contents in self._held.values() for now, then in contents)
        return held and all(_same(now, then) for now, then in self._hooks)

    def changes(self) -> list[tuple[str, str, Any]]:
        """Path, name and value of the attributes that are others now."""
        found = []
        for path, ((now, then), *_) in self._held.items():
            if not _same(now, then):
                different = [
                    name for name in now if name not in then or then[name] is not now[name]
                ]
                found += [(path, name, now[name]) for name in different]
        return found

    def restore(self) -> None:
        """Put back all that the layers held; the values inside tensors stay."""
        for contents in self._held.values():
            for now, then in contents:
                if not _same(now, then):
                    now.clear()
                    now.update(then)


def _contents(layer: nn.Module) -> tuple[dict[str, Any], ...]:
    """The dictionaries that make up a layer: attributes, parameters, buffers, sublayers."""
    return layer.__dict__, layer._parameters, layer._buffers, layer._modules


def _hooks(layer: nn.Module) -> list[dict[Any, Any]]:
    """The dictionaries of a layer's hooks."""
    return [layer.__dict__[name] for name in _HOOKS]


def _same(now: dict[str, Any], then: dict[str, Any]) -> bool:
    return len(now) == len(then) and (
        not now or all(map(operator.is_, now.values(), then.values()))
    )


def at(path: str, name: str) -> str:
    """The place of a layer's value."""
    return f"{path}.{name}" if path else name


def put(module: nn.Module, place: str, value: Tensor) -> bool:
    """Give a place of the state, or an untrained parameter, another value: in place if possible,
    else assigned anew.

    Returns:
        Whether it was assigned anew.
    """
    path, _, name = place.rpartition(".")
    layer = module.get_submodule(path)
    values: dict[str, Any] = next(
        (held for held in (layer._buffers, layer._parameters) if name in held), layer.__dict__
    )
    old = values.get(name)
    if isinstance(old, Tensor) and old.is_contiguous() and kind(old) == kind(value):
        old.copy_(value)
        return False
    values[name] = value.clone()
    return True


def kind(value: Tensor) -> tuple[tuple[int, ...], torch.dtype, torch.device]:
    """Shape, dtype and device."""
    return tuple(value.shape), value.dtype, value.device


def is_hooked(value: Tensor) -> bool:
    """Whether a parameter has hooks, which ``backward()`` would call and nothing here does."""
    return bool(value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None))


# --- attention ---


class _Switches:
    """How many want the mathematical form of attention now; torch has one set of switches for all
    threads.
    """

    def __init__(self) -> None:
        self.lock, self.wanted = threading.Lock(), 0
        self.before: list[bool] = []


_SWITCHES = _Switches()
_ATTENTION: tuple[tuple[Callable[[], bool], Callable[[bool], None], bool], ...] = (
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp, True),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, False),
    (
        torch.backends.cuda.mem_efficient_sdp_enabled,
        torch.backends.cuda.enable_mem_efficient_sdp,
        False,
    ),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp, False),
    (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, False),
)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention written out in elementary operations: its fused kernels can neither be
    differentiated twice nor mapped.

    The switches are the process's: the first to come in turns them, the last to leave puts them
    back."""
    with _SWITCHES.lock:
        if not _SWITCHES.wanted:
            _SWITCHES.before = [get() for get, _, _ in _ATTENTION]
            for _, switch, on in _ATTENTION:
                switch(on)
        _SWITCHES.wanted += 1
    try:
        yield
    finally:
        with _SWITCHES.lock:
            _SWITCHES.wanted -= 1
            if not _SWITCHES.wanted:
                for (_, switch, _), on in zip(_ATTENTION, _SWITCHES.before, strict=True):
                    switch(on)


# --- two modules that shall be run as one ---


def difference(first: nn.Module, other: nn.Module) -> str | None:
    """What keeps two modules from being the same program with other tensors, in a few words; None
    if nothing does.

    Parameters, buffers and tensors that are plain attributes may differ in their values. Everything
    else that a layer
    holds has to be equal: its type, its mode (training or evaluation), rates, sizes, functions,
    hooks, which of its places are tied, and the values of tensors that are deeper inside, as in a
    list of layers that is not registered."""
    ours, theirs = dict(first.named_modules()), dict(other.named_modules())
    comparison = _Comparison(_addresses(first) | _addresses(other))
    for path in [*ours, *theirs]:
        if path not in ours or path not in theirs:
            return f"layer {path} is in one of them only"
        words = _layer_difference(ours[path], theirs[path], comparison)
        if words is not None:
            return f"layer {path or 'itself'}: {words}"
    if Stateless(first).names != Stateless(other).names:
        return "they tie their tensors in different ways"
    return None


def _layer_difference(first: nn.Module, other: nn.Module, comparison: _Comparison) -> str | None:
    if _program(first) is not _program(other):
        return f"{_program(first).__name__} and {_program(other).__name__}"
    ours, theirs = _held(first), _held(other)
    for name in [*ours, *theirs]:
        if name not in ours or name not in theirs:
            return f"{name} is in one of them only"
        if not comparison.alike(ours[name], theirs[name]):
            return _in_words(name, _words(ours[name]), _words(theirs[name]))
    return None


def _in_words(name: str, ours: str, theirs: str) -> str:
    return f"{name} is {ours} and {theirs if ours != theirs else 'another'}"


def _program(layer: nn.Module) -> type:
    """The class that the user has named:

    `torch.nn.utils.parametrize` makes one of its own for each layer.
    """
    return type(layer).__bases__[0] if is_parametrized(layer) else type(layer)


def _held(layer: nn.Module) -> dict[str, Any]:
    """What a layer holds besides its sublayers, hooks as lists."""
    values = {name: value for name, value in layer.__dict__.items() if name not in _INTERNAL}
    values |= {name: list(held.values()) for name, held in zip(_HOOKS, _hooks(layer), strict=True)}
    return values | {**layer._parameters, **layer._buffers}


def _addresses(module: nn.Module) -> set[int]:
    """Where the values of a module's parameters and state are; other objects may be views of
    them.
    """
    return {value.data_ptr() for value in (*module.parameters(), *Stateless(module).state.values())}


def _words(value: object) -> str:
    if isinstance(value, Tensor):
        return f"of shape {tuple(value.shape)} and {value.dtype}"
    text = getattr(value, "__name__", None) or " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}…"


class _Comparison:
    """Whether values of two modules do the same.

    Args:
        own: `_addresses` of the modules, whose values may differ.
    """

    def __init__(self, own: set[int]) -> None:
        self._own = own
        self._begun: dict[
            tuple[int, int], tuple[Any, Any]
        ] = {}  # holds them, so that no number is used again

    def alike(self, first: Any, other: Any, depth: int = DEPTH) -> bool:
        """Whether two values are equal, tensors of one kind, or made of such values."""
        if first is other or depth == 0 or isinstance(first, weakref.ref):
            return True
        if _is_number(first) and _is_number(other):
            return bool(first == other) or (math.isnan(first) and math.isnan(other))
        if isinstance(first, Tensor) and isinstance(other, Tensor):
            return self._tensors_alike(first, other, depth)
        if type(first) is not type(other):
            return False
        if isinstance(first, _PLAIN) or (callable(first) and not hasattr(first, "__dict__")):
            return bool(first == other)
        pair = id(first), id(other)
        if pair in self._begun:
            return True
        self._begun[pair] = first, other
        ours, theirs = _parts(first), _parts(other)
        return list(ours) == list(theirs) and all(
            self.alike(ours[key], theirs[key], depth - 1) for key in ours
        )

    def _tensors_alike(self, first: Tensor, other: Tensor, depth: int) -> bool:
        if kind(first) != kind(other):
            return False
        if type(first) is type(other) and first.requires_grad != other.requires_grad:
            return False
        if depth == DEPTH or first.is_meta or first.data_ptr() in self._own:
            return True
        return torch.equal(first, other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parts(value: Any) -> Mapping[Any, Any]:
    """What a value is made of; nothing for one that cannot be looked into."""
    if isinstance(value, nn.Module):
        return _held(value) | value._modules
    if isinstance(value, Mapping):
        return value
    if isinstance(value, set | frozenset):
        return dict.fromkeys(sorted(value, key=repr))
    if isinstance(value, functools.partial):
        return {"function": value.func, "arguments": value.args, "keywords": value.keywords}
    if isinstance(value, types.MethodType):
        return {"function": value.__func__}
    if isinstance(value, types.FunctionType):
        cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        return {value.__code__: None, "defaults": value.__defaults__, "closure": cells}
    if isinstance(value, Sequence):
        return dict(enumerate(value))
    if hasattr(value, "tobytes"):  # an array of numpy's
        return {
            "bytes": value.tobytes(),
            "shape": getattr(value, "shape", ()),
            "dtype": getattr(value, "dtype", None),
        }
    return _reduced(value)


def _reduced(value: Any) -> Mapping[Any, Any]:
    """What a copy of an object would be made from, which also tells the state of generators,
    counters and slots.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reduced = value.__reduce_ex__(2)
    except Exception:  # of classes that cannot be copied
        return getattr(value, "__dict__", {})
    return dict(enumerate(reduced)) if isinstance(reduced, tuple) else {}
