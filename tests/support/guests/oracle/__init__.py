"""Wasmer, whose calls greenctx provides, as the judge of what they do: the same guests run on its own engine."""
