"""Functions compiled by numba once per machine, however many processes want them at once.

numba keeps machine code in a folder, by processor and by the source's file. Whoever finds nothing
there for a function locks a file beside it, looks again, and compiles. The lock is the kernel's
(flock): it ends with its process, however that ends. Where there is no folder, or none that can be
locked, each process compiles for itself. What an administrator, or the build of an image, has
compiled beside the package is read also by users who may not write there.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

WAIT_SECONDS = 120.0
"""How long another process that compiles is waited for: one that stands still keeps its lock."""

LOOK_SECONDS = 0.05

DAMAGED = (
    OSError,
    EOFError,
    ImportError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    RuntimeError,
    MemoryError,
    pickle.UnpicklingError,
)
"""What reading a file of numba's raises that is not whole."""

_locks: set[Path] = set()
"""Of the functions that this process may want."""

_dispatchers: list[Any] = []
"""They themselves."""


def compiled(*signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: `numba.njit` with these options, kept on the disk.

    Parameters
    ----------
    signature
        Of numba; it is compiled at once then, and no other.
    """
    from numba import njit

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            dispatcher = njit(cache=True, **options)(function)
        except RuntimeError:  # there is no folder to keep it
            return njit(*signature, **options)(function)
        _compile_once(dispatcher)
        if signature:
            dispatcher.compile(*signature)
            dispatcher.disable_compile()
        return dispatcher

    return decorate


def under_way() -> bool:
    """Whether a process of this machine compiles what this one knows of just now."""
    for path in list(_locks):
        with suppress(OSError), path.open("rb") as file:
            if not _locked(file, shared=True):  # as others who only look
                return True
    return False


def folders() -> list[Path]:
    """Where functions that this process has imported are kept."""
    return sorted({path.parent for path in _locks})


def load_kept() -> None:
    """Load all that is kept of the functions that this process may want; nothing is compiled.

    For a process that others are forked from: it takes 0.2 s, and they share what it holds.
    """
    for dispatcher in _dispatchers:
        cache = dispatcher._cache
        codegen = dispatcher.targetctx.codegen()
        for file in _files(dispatcher):
            with suppress(*DAMAGED):
                for signature, *rest in file._load_index():
                    if cache._index_key(signature, codegen) == (signature, *rest):
                        dispatcher.compile(signature)  # which finds it


def _compile_once(dispatcher: Any) -> None:
    """Let a dispatcher look into its cache again when it holds the lock, and let go of it at last.

    numba itself looks once and compiles what it did not find.
    """
    load, compile_it = _whole(_load(dispatcher), dispatcher._cache), dispatcher.compile
    function = dispatcher.py_func
    path = Path(dispatcher.stats.cache_path, f"{function.__module__}.{function.__name__}.lock")
    held: list[IO[bytes]] = []  # by the only thread that numba lets compile
    _locks.add(path)
    _dispatchers.append(dispatcher)

    def loaded(signature: Any, context: Any) -> Any:
        found = load(signature, context)
        if found is None and not held and (lock := _lock(path)) is not None:
            held.append(lock)
            found = load(signature, context)
        return found

    def compiled_once(signature: Any) -> Any:
        try:
            return compile_it(signature)
        finally:
            while held:
                held.pop().close()

    dispatcher._cache.load_overload = loaded
    dispatcher.compile = compiled_once


def _load(dispatcher: Any) -> Callable[[Any, Any], Any]:
    """How a dispatcher finds compiled code: in its folder, else beside its source."""
    cache = dispatcher._cache
    kept, load, (_, *beside) = cache._impl, cache.load_overload, _files(dispatcher)
    if not beside:
        return load  # type: ignore[no-any-return]

    def loaded(signature: Any, context: Any) -> Any:
        found = load(signature, context)
        if found is None:
            with suppress(OSError):
                found = beside[0].load(cache._index_key(signature, context.codegen()))
            found = kept.rebuild(context, found) if found is not None else None
        return found

    return loaded


def _whole(load: Callable[[Any, Any], Any], cache: Any) -> Callable[[Any, Any], Any]:
    """The same, but what is damaged is as good as not there, and is written anew."""

    def loaded(signature: Any, context: Any) -> Any:
        try:
            return load(signature, context)
        except DAMAGED:
            with suppress(OSError):
                cache.flush()
            return None

    return loaded


def _files(dispatcher: Any) -> list[Any]:
    """Where a dispatcher's compiled code is kept: in its folder, and beside its source."""
    caching: Any = importlib.import_module("numba.core.caching")  # without types

    own = dispatcher._cache._cache_file
    kept = dispatcher._cache._impl
    beside = Path(dispatcher.py_func.__code__.co_filename).parent / "__pycache__"
    if str(beside) == dispatcher.stats.cache_path:
        return [own]
    stamp = kept.locator.get_source_stamp()
    return [own, caching.IndexDataCacheFile(str(beside), kept.filename_base, stamp)]


def _lock(path: Path) -> IO[bytes] | None:
    """The file, locked; None where that cannot be, or took another process too long."""
    with ExitStack() as opened, suppress(OSError):  # a read-only folder, a disk without locks
        file = opened.enter_context(path.open("ab"))
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            if _locked(file):
                opened.pop_all()
                return file
            time.sleep(LOOK_SECONDS)
    return None


if sys.platform == "win32":

    def _locked(file: IO[bytes], *, shared: bool = False) -> bool:
        raise OSError("not here")
else:
    import fcntl

    def _locked(file: IO[bytes], *, shared: bool = False) -> bool:
        """Whether an open file is ours now."""
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
