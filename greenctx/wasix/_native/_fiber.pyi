from collections.abc import Callable, Sequence
from typing import Any, Final

from greenlet import greenlet
from wasmtime import Engine

from greenctx._core.scope import WithoutContexts
from greenctx.environment import ContextSwitchingEnvironment
from greenctx.errors import GuestException
from greenctx.wasix._clock.deadline import Deadline
from greenctx.wasix._shadow_stacks.shadow_stacks import ShadowStacks

FUNCTIONS: Final[tuple[str, ...]]
LAYOUT: Final[tuple[int, int, int, int]]
ON_EPOCH_END: Final[int]

def configure(addresses: Sequence[int], guest_: object, forget_: Callable[[int], None]) -> None: ...
def callback_addresses(function: object, is_switch: bool = False) -> tuple[int, int, int]: ...

YIELDED: Final[object]

class EpochThread:
    @property
    def running(self) -> bool: ...
    def __init__(self, engine: Engine, address: int, microseconds: int) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

class ThrownException:
    address: int

class StoreState:
    store_id: int
    calls: int
    deadline: Deadline
    shadow_stacks: ShadowStacks | None
    process: Any
    short_bursts: bool
    floor: Fiber | None
    def __init__(self, store_id: int, deadline: Deadline) -> None: ...
    def lay_floor(self, fiber: Fiber) -> None: ...
    def remove_floor(self) -> None: ...
    def check(self) -> None: ...
    def forget_lost(self) -> None: ...
    def collect(self, context: int, environment: ContextSwitchingEnvironment | WithoutContexts | None) -> None: ...
    def new_externref(
        self,
        context: int,
        handle: int,
        reference: int,
        environment: ContextSwitchingEnvironment | WithoutContexts | None,
    ) -> bool: ...

class Fiber:
    given: GuestException | None
    thrown: ThrownException | None
    def __init__(
        self,
        future: int,
        context: int,
        state: StoreState,
        keep_alive: object,
        environment: ContextSwitchingEnvironment | WithoutContexts | None = None,
        greenlet: greenlet | None = None,
        short_bursts: bool = False,
    ) -> None: ...
    def poll(self) -> Any: ...
    def close(self) -> None: ...
    @property
    def caller(self) -> int: ...
    @property
    def arguments(self) -> bytes: ...
    @property
    def is_waiting(self) -> bool: ...
    def answer(self, results: bytes) -> None: ...
    def fail(self, message: bytes) -> None: ...
    def throw(self, given: GuestException, exception: ThrownException) -> None: ...
