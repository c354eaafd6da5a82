"""A reverse tunnel by asyncssh: port 9000 of the server's loopback leads to port 8000 here.

HOST, KEY, and what it may compress with: `default` or `none`.
"""
import asyncio
import sys

import asyncssh


async def main(host, key, compression):
    algorithms = () if compression == "default" else ["none"]
    async with asyncssh.connect(
        host,
        username="root",
        client_keys=[key],
        known_hosts=None,
        config=None,
        compression_algs=algorithms,
    ) as connection:
        listener = await connection.forward_remote_port("127.0.0.1", 9000, "127.0.0.1", 8000)
        await listener.wait_closed()


asyncio.run(main(*sys.argv[1:]))
