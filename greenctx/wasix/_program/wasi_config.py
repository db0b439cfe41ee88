"""The WASI settings of a guest: arguments, environment variables and directories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import wasmtime
from wasmtime import WasiConfig, WasmtimeError

from greenctx.errors import InvalidProgram
from greenctx.wasix._modules.exhaustion import check_resources
from greenctx.wasix._native import capi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from greenctx.wasix._files.stdio import Stdio

T = TypeVar("T")


class ReadOnly:
    """A directory of the host that a guest can read, but not change: ``preopens={"/data": ReadOnly("./data")}``."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = os.fspath(directory)

    def __fspath__(self) -> str:
        return self._directory

    def __repr__(self) -> str:
        return f"ReadOnly({self._directory!r})"


class WasiSettings:
    """WASI's settings of the program ``name``. Raises `InvalidProgram` for settings that WASI cannot pass on."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str] | None,
        env: Mapping[str, str] | None,
        preopens: Mapping[str, str | os.PathLike[str]] | None,
    ) -> None:
        if isinstance(argv, str):
            raise TypeError(f"argv must be a list of strings, the program's name first, not {argv!r}")
        self.name = name
        self.argv = [name] if argv is None else list(argv)
        self.env = _mapping("env", env, '{"NAME": "value"}')
        preopens = _mapping("preopens", preopens, '{"/guest/directory": "host/directory"}')
        self.preopens = {
            guest: host if isinstance(host, ReadOnly) else os.fspath(host) for guest, host in preopens.items()
        }
        directories = [os.fspath(host) for host in self.preopens.values()]
        for text in (*self.argv, *self.env, *self.env.values(), *self.preopens, *directories):
            if "\0" in text or _has_surrogates(text):
                raise InvalidProgram(name, f"{text!r} cannot be given to a guest: it is not UTF-8 text")
        for host in directories:
            if not os.path.isdir(host):
                raise InvalidProgram(name, f"the directory {host!r} to preopen is not there")

    def replaced(self, **given: Any) -> WasiSettings:
        """Return settings with those arguments replaced."""
        own: dict[str, Any] = {"argv": self.argv, "env": self.env, "preopens": self.preopens}
        return WasiSettings(self.name, **{**own, **given}) if given else self

    def wasi_config(self, stdio: Stdio) -> WasiConfig:
        """Return these settings as a wasmtime.WasiConfig."""
        config = WasiConfig()
        capi.set_arguments(config, self.argv, self.env)
        stdio.configure(config)
        for guest, host in self.preopens.items():
            directory = os.fspath(host)
            try:
                config.preopen_dir(directory, guest, *(_read_only() if isinstance(host, ReadOnly) else ()))
            except WasmtimeError as error:  # it has vanished since the program was loaded
                _check_can_open(directory)
                raise InvalidProgram(self.name, f"the directory {directory!r} cannot be opened") from error
        return config


def _read_only() -> tuple[Any, ...]:
    """Return the arguments of ``preopen_dir``: permissions in wasmtime's earlier versions, one flag in later ones."""
    kinds = [getattr(wasmtime, name, None) for name in ("DirPerms", "FilePerms")]
    return tuple(kind.READ_ONLY for kind in kinds if kind is not None) or (False,)


def _mapping(name: str, given: Mapping[str, T] | None, example: str) -> dict[str, T]:
    if given is not None and not hasattr(given, "keys"):
        raise TypeError(f"{name} must be a dictionary, such as {example}, not {given!r}")
    return dict(given or {})


def _check_can_open(directory: str) -> None:
    """Raise `ResourcesExhausted` if the system lacks a resource to open the directory: wasmtime does not say."""
    try:
        os.close(os.open(directory, os.O_RDONLY))
    except OSError as error:
        check_resources(error)


def _has_surrogates(text: str) -> bool:
    return any(0xD800 <= ord(character) <= 0xDFFF for character in text)
