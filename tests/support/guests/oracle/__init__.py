"""Wasmer, whose calls greenctx provides, as the reference: the same guests run on its own engine."""
