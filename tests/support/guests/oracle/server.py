"""Runs modules with Wasmer's SDK, one for each line of JSON on stdin: ``python server.py CACHE``.

A process of its own, because Wasmer can abort the process: `wasmer.Wasmer` starts it, and starts it again.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmer_sdk import Wasmer, WasmerError

if TYPE_CHECKING:
    from wasmer_sdk import Package, ReadableBytes


async def serve(cache: str) -> None:
    """Answer every request with what the program did."""
    packages: dict[str, Package] = {}
    async with Wasmer(cache_root=cache) as wasmer:
        for line in sys.stdin:
            request = json.loads(line)
            module = request["module"]
            if module not in packages:
                packages[module] = await wasmer.packages.load(Path(module).read_bytes())
            print(json.dumps(await run(wasmer, packages[module], request)), flush=True)


async def run(wasmer: Wasmer, package: Package, request: dict[str, Any]) -> dict[str, Any]:
    """Run a program in a sandbox of its own, so that it finds only its own files."""
    async with await wasmer.sandboxes.create(packages=[package], files=request["files"]) as sandbox:
        # Not `Command.run`, because a trap leaves nothing of the output then.
        process = await sandbox.command(package, request["args"]).spawn(timeout=request["timeout"])
        stdout, stderr = bytearray(), bytearray()
        readers = [
            asyncio.create_task(collect(process.stdout, stdout)),
            asyncio.create_task(collect(process.stderr, stderr)),
        ]
        status = None
        try:
            output = await process.wait()
        except WasmerError as error:
            reason = f"failed: {error}"
        else:
            status, reason = output.exit_code, output.reason.value
        await asyncio.wait(readers, timeout=1)  # a guest that loops for ever keeps its streams open
    texts = {"stdout": stdout.decode("latin-1"), "stderr": stderr.decode("latin-1")}
    return {"status": status, "reason": reason, **texts}


async def collect(stream: ReadableBytes | None, output: bytearray) -> None:
    """Append what a stream brings."""
    assert stream is not None
    async for part in stream:
        output += part


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
