"""WebAssembly modules as bytes: no store, no fiber."""
