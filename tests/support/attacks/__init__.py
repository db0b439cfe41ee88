"""Guests that mean harm, and how each has to end. The modules add theirs to the list."""

from attacks import contexts, exports, messages, shadow_stacks, start_functions, values, wasi_calls, wasix_calls
from attacks.writing import ATTACKS, LIMITS, REFUSED, SHORT

__all__ = [
    "ATTACKS",
    "LIMITS",
    "REFUSED",
    "SHORT",
    "contexts",
    "exports",
    "messages",
    "shadow_stacks",
    "start_functions",
    "values",
    "wasi_calls",
    "wasix_calls",
]
