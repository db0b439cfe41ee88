"""The logger ``greenctx`` as an instrument: it logs creations, ends and destructions of contexts at DEBUG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenctx._core.context import MAIN, name_of
from greenctx._reports.reports import logger
from greenctx.errors import ContextCanceled

if TYPE_CHECKING:
    from collections.abc import Callable


class Log:
    """An instrument that logs one line for each creation, destruction and error.

    An error is logged once, for the first context that it ends, even if it then ends others. An error that ends main is
    not logged, because ``run_main_context`` raises it.
    """

    def __init__(self) -> None:
        self._logged: BaseException | None = None

    def context_created(self, _environment: object, context_id: int, entrypoint: Callable[[], object]) -> None:
        logger.debug("context %d (%s) created", context_id, name_of(entrypoint))

    def context_ended(self, _environment: object, context_id: int, error: BaseException | None) -> None:
        unwound = isinstance(error, ContextCanceled) and error.context_id == context_id
        if context_id == MAIN or unwound or error is self._logged is not None:
            return
        if error is None:
            logger.debug("the entrypoint of context %d returned", context_id)
        else:
            logger.debug("context %d ended with %r", context_id, error)
        self._logged = error

    def context_destroyed(self, _environment: object, context_id: int) -> None:
        logger.debug("context %d destroyed", context_id)

    def environment_ended(self, _environment: object) -> None:
        self._logged = None
