"""Claims: a model that is steered, or read by hooks, belongs to the context that does it until that ends.

What is set on a module acts on every forward pass of it, whoever runs it. So whoever sets something claims the model
first, and what was set asks at every pass whether the pass is the claimant's: in another thread or asyncio task, and in
the caller of a generator that is suspended inside its ``with``, the numbers would be those of another model. Both are
refused. Contexts are those of `contextvars`: a task has a copy of the context it was made in, so has the thread of
``asyncio.to_thread``, and both belong to the claimant; another thread begins with nothing.
"""

import asyncio
import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

import torch
from torch import nn

from weightsteer.errors import WeightsteerError

_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE


class Claim:
    """One context's hold on a model, made by `claimed`."""

    def __init__(self, model: nn.Module, frame: FrameType) -> None:
        self.model = model
        self.holder = _context()
        self.thread = threading.get_ident()
        self.generators, self.simple = _entered(frame)
        # torch.compile can look at no context variable, but guards what a thread keeps for itself
        self.here = threading.local()
        self.here.entered = True
        self.ended = False

    def check(self) -> None:
        """Refuse a forward pass that is not the claimant's.

        Raises:
            WeightsteerError: another thread or asyncio task runs the model, or a generator that is suspended inside
                its ``with`` left it steered.
        """
        if torch.compiler.is_dynamo_compiling() and self.simple and getattr(self.here, "entered", False):
            return
        for frame in self.generators:
            if frame.f_back is None:  # nobody called it: it is suspended
                raise WeightsteerError(self._suspended())
        if self not in _held.get() and not self._in_backward():
            raise WeightsteerError(self._elsewhere())

    def stands_against(self, model: nn.Module) -> str | None:
        """Why this context may not claim ``model`` now; None when it may."""
        suspended = any(frame.f_back is None for frame in self.generators)
        if self in _held.get() and not suspended:
            return None
        if set(self.model.modules()).isdisjoint(model.modules()):
            return None
        return self._suspended() if suspended else self._elsewhere()

    def end(self) -> None:
        """Forget whom it belonged to, so that a copy of the context keeps neither the model nor frames alive."""
        self.ended = True
        self.generators = ()
        self.model = nn.Module()

    def _in_backward(self) -> bool:
        """Whether this is a thread of autograd at work for the claimant, which recomputes a gradient checkpoint."""
        return threading.get_ident() != self.thread and self in _of_thread()

    def _elsewhere(self) -> str:
        return (
            f"the model is being steered or measured in {self.holder}, and this is {_context()}: a pass here would be "
            "steered by the other, or steer it. Take turns (a lock around `with steer(...)` and around plain passes), "
            "give each its own model, or put the rows into one batch with one alpha per row. A thread that is to run "
            "inside the `with` of another needs that one's context: asyncio.to_thread(...), or "
            "Thread(target=contextvars.copy_context().run, args=(function, ...))."
        )

    def _suspended(self) -> str:
        frame = next(frame for frame in self.generators if frame.f_back is None)
        code = frame.f_code
        return (
            f"the generator {code.co_name!r} ({code.co_filename}, line {frame.f_lineno}) steers or measures the model "
            "and waits inside its `with`, so that every other pass would be steered too. Finish or close it first, put "
            "the `with` around the loop that reads it, or yield outside the `with`. A generator that is meant for a "
            "`with` of its own needs @contextlib.contextmanager."
        )


_held: ContextVar[tuple[Claim, ...]] = ContextVar("weightsteer_claims", default=())
_active: list[Claim] = []
_lock = threading.RLock()  # a generator that is thrown away may end its claim while this thread makes another


@contextmanager
def claimed(model: nn.Module) -> Iterator[Claim]:
    """Run the body with the model to oneself; claims of one context nest.

    What is set on the model inside has to call `Claim.check` at every pass.

    Raises:
        WeightsteerError: another thread or asyncio task, or a suspended generator, has claimed the model or a part of
            it. The message says who, and what to do.
    """
    claim = Claim(model, sys._getframe())
    with _lock:
        for other in tuple(_active):
            if reason := other.stands_against(model):
                raise WeightsteerError(reason)
        _active.append(claim)
    # an earlier claim may have been ended from elsewhere, and still be listed here
    _held.set((*_going_on(_held.get()), claim))
    _keep_in_thread((*_going_on(_of_thread()), claim))
    try:
        yield claim
    finally:
        with _lock:
            _active.remove(claim)
        claim.end()
        # of the context and thread that end it, which may not be those that began
        _held.set(_going_on(_held.get()))
        _keep_in_thread(_going_on(_of_thread()))


def _going_on(some: tuple[Claim, ...]) -> tuple[Claim, ...]:
    return tuple(claim for claim in some if not claim.ended)


_KEY = "weightsteer_claims"


def _keep_in_thread(claims: tuple[Claim, ...]) -> None:
    # the one thing that autograd hands on from the thread that calls backward() to those that it computes in
    torch._C._stash_obj_in_tls(_KEY, claims)


def _of_thread() -> tuple[Claim, ...]:
    found: tuple[Claim, ...] = torch._C._get_obj_in_tls(_KEY) if torch._C._is_key_in_tls(_KEY) else ()
    return found


def _entered(frame: FrameType) -> tuple[tuple[FrameType, ...], bool]:
    """The generators below which a claim is made, and whether nothing can suspend it: no coroutine and none of those.

    A generator that `contextlib` runs is a context manager, and left out: it waits while the body of its ``with`` runs.
    """
    generators, simple = [], True
    at: FrameType | None = frame
    while at is not None:
        flags = at.f_code.co_flags
        if flags & _GENERATOR and not (at.f_back and at.f_back.f_globals.get("__name__") == "contextlib"):
            generators.append(at)
        simple = simple and not flags & _COROUTINE
        at = at.f_back
    return tuple(generators), simple and not generators


def _context() -> str:
    """Thread and asyncio task, in words."""
    thread = f"thread {threading.current_thread().name!r}"
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop here
        task = None
    return f"asyncio task {task.get_name()!r} of {thread}" if task else thread
