from collections.abc import Callable, Sequence
from typing import Any, Final

from wasmtime import Store, ValType

from greenctx.current import WithoutContexts
from greenctx.environment import ContextSwitchingEnvironment
from greenctx.wasix.interruption import TimeLimit
from greenctx.wasix.shadow_stack import ShadowStacks

def configure(
    poll: int,
    delete: int,
    trap: int,
    value_size: int,
    value_offset: int,
    continuation_size: int,
    guest_: object,
    load: Callable[[Store, int], Any],
    store: Callable[[Store, ValType, Any, int], None],
) -> None: ...
def callback_addresses(function: object) -> tuple[int, int, int]: ...

YIELDED: Final[object]

class StoreState:
    store_id: int
    calls: int
    time_limit: TimeLimit
    shadow_stacks: ShadowStacks | None
    def __init__(self, store_id: int, time_limit: TimeLimit) -> None: ...
    def check(self) -> None: ...

class Fiber:
    def __init__(self, future: int, state: StoreState, keep_alive: object) -> None: ...
    def poll(self, environment: ContextSwitchingEnvironment | WithoutContexts | None) -> Any: ...
    def close(self) -> None: ...
    @property
    def caller(self) -> int: ...
    def arguments(self, store: Store) -> tuple[Any, ...]: ...
    def answer(self, kinds: bytes, types: Sequence[ValType], value: Any, store: Store) -> None: ...
    def fail(self, message: bytes) -> None: ...
