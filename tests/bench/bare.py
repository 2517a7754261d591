"""The floor: an asyncio.Protocol that reads nothing and answers the same bytes to whatever arrives.

    python3 bare.py PORT FILE-WITH-THE-ANSWER

What a server does beyond this is its own work; what it does faster than this, it cannot do in asyncio.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


class Constant(asyncio.Protocol):
    """Answer every packet with `answer`: the load generators send a request in one piece."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self.transport.write(self.answer)  # type: ignore[attr-defined]  # BaseTransport, says asyncio.Protocol


async def main(port: str, path: str) -> None:
    """Listen until killed."""
    Constant.answer = Path(path).read_bytes()
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", int(port), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
