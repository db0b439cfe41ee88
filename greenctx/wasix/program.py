"""Program: a WASI command with its arguments, environment variables and directories; run it, get its exit status."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from wasmtime import Config, Engine, FuncType, Module, Store, WasiConfig, WasmtimeError

from greenctx.environment import ContextSwitchingEnvironment
from greenctx.errors import GuestExit, InvalidProgram
from greenctx.wasix.abi import START
from greenctx.wasix.linker import Linker
from greenctx.wasix.suspend import call, check_imports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wasmtime import Func

_BINARY_MAGIC = b"\0asm"
_COMPONENT_LAYER = b"\1\0"


class Program:
    """A WASI command, compiled and ready to run.

    ``linker`` has WASI preview 1 and the WASIX context calls; host functions of one's own are added with its
    ``define_func`` before `run`. Each `run` uses a store of its own and closes it.
    """

    def __init__(
        self,
        code: bytes,
        *,
        name: str = "program",
        argv: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        preopens: Mapping[str, str | os.PathLike[str]] | None = None,
    ) -> None:
        """Compile ``code``, a module in binary or text (WAT) form.

        ``argv`` includes the program's name and is ``[name]`` by default; ``env`` is all that the guest sees of
        environment variables; ``preopens`` maps the guest's directories to the host's. The guest inherits stdin,
        stdout and stderr.

        Raises `InvalidProgram` if it is not a WASI command that this wasmtime can compile, and for a directory that
        is not there or a string that WASI cannot pass on.
        """
        self.name = name
        self.argv = [name] if argv is None else list(argv)
        self.env = dict(env or {})
        self.preopens = {guest: os.fspath(host) for guest, host in (preopens or {}).items()}
        self._check_settings()
        self._engine = Engine(Config())
        self._module = _compile(self._engine, name, code)
        _check_start(name, self._module)
        self.linker = Linker(self._engine)
        self.linker.define_wasi()
        self.linker.define_wasix()

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        argv: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        preopens: Mapping[str, str | os.PathLike[str]] | None = None,
    ) -> Program:
        """Load a .wasm or .wat file. See `__init__`; a file that cannot be read is `InvalidProgram`, too."""
        name = os.fspath(path)
        try:
            code = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise InvalidProgram(name, getattr(error, "strerror", None) or str(error)) from error
        return cls(code, name=name, argv=argv, env=env, preopens=preopens)

    def run(self) -> int:
        """Run the program; return its exit status.

        Raises `InvalidProgram` if an import is not defined, `wasmtime.Trap` when the guest traps in any context,
        `greenctx.ContextEntrypointReturned`, and whatever a host function raises.
        """
        with Store(self._engine) as store:
            store.set_wasi(self._wasi_config())
            self._check_imports(store)
            environment = ContextSwitchingEnvironment()
            try:
                environment.run_main_context(self._run_start, store)
            except GuestExit as exit:
                return exit.status
        return 0

    def _run_start(self, store: Store) -> None:
        call(store, cast("Func", self.linker.instantiate(store, self._module).exports(store)[START]))

    def _check_imports(self, store: Store) -> None:
        missing = []
        for wanted in self._module.imports:
            try:
                self.linker.get(store, wanted.module, wanted.name or "")
            except WasmtimeError:
                missing.append(f"{wanted.module}.{wanted.name}")
        if missing:
            raise InvalidProgram(self.name, f"nothing provides what it imports: {', '.join(missing)}")
        try:
            check_imports(self.linker, self._module)
        except WasmtimeError as error:
            raise InvalidProgram(self.name, f"it cannot be linked: {_in_one_line(error)}") from error

    def _check_settings(self) -> None:
        settings = [*self.argv, *self.env, *self.env.values(), *self.preopens, *self.preopens.values()]
        for setting in settings:
            if "\0" in setting or _has_surrogates(setting):
                raise InvalidProgram(self.name, f"{setting!r} cannot be given to a guest: it is not UTF-8 text")
        for host in self.preopens.values():
            if not os.path.isdir(host):
                raise InvalidProgram(self.name, f"the directory {host!r} to preopen is not there")

    def _wasi_config(self) -> WasiConfig:
        config = WasiConfig()
        config.argv = self.argv
        config.env = self.env.items()
        config.inherit_stdin()
        config.inherit_stdout()
        config.inherit_stderr()
        for guest, host in self.preopens.items():
            config.preopen_dir(host, guest)
        return config


def _has_surrogates(text: str) -> bool:
    return any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _compile(engine: Engine, name: str, code: bytes) -> Module:
    if not code.strip():
        raise InvalidProgram(name, "it is empty")
    source: bytes | str = code
    if not code.startswith(_BINARY_MAGIC):
        try:
            source = code.decode()
        except UnicodeDecodeError:
            source = "\0"
        if "\0" in source:
            raise InvalidProgram(name, "it is neither a WebAssembly module nor WebAssembly text")
    elif code[6:8] == _COMPONENT_LAYER:
        raise InvalidProgram(name, "it is a component; only core modules can be run")
    try:
        return Module(engine, source)
    except WasmtimeError as error:
        raise InvalidProgram(name, f"it does not compile: {_in_one_line(error)}") from error


def _check_start(name: str, module: Module) -> None:
    start = next((export.type for export in module.exports if export.name == START), None)
    if start is None:
        raise InvalidProgram(name, f"it exports no {START!r}, so it is not a WASI command")
    if not isinstance(start, FuncType):
        raise InvalidProgram(name, f"its export {START!r} is not a function")
    if start.params or start.results:
        raise InvalidProgram(name, f"its export {START!r} takes arguments or returns results")


def _in_one_line(error: WasmtimeError) -> str:
    return " ".join(str(error).split())
