"""Connects by names that have several addresses, of which not all work: getaddrinfo
asks for both families and connects UDP sockets to sort what it got (RFC 6724), and
the program tries addresses in turn (RFC 8305).

  eyeballs.py NAME PORT DEAD6   a name, and an IPv6 address of it at which nobody answers
"""

import asyncio
import socket
import sys

name, port, dead = sys.argv[1], int(sys.argv[2]), sys.argv[3]


async def main():
    total = 0
    for _ in range(3):
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
        assert found
        # As a resolver that knows both families would have answered.
        both = [(socket.AF_INET6, (dead, port)), (socket.AF_INET, found[0][4])]
        loop = asyncio.get_running_loop()

        async def attempt(family, address, delay):
            await asyncio.sleep(delay)
            with socket.socket(family) as stream:
                stream.setblocking(False)
                await loop.sock_connect(stream, address)
                await loop.sock_sendall(stream, b"GET /bytes/300 HTTP/1.0\r\n\r\n")
                return len(await loop.sock_recv(stream, 65536))

        attempts = [asyncio.create_task(attempt(*it, 0.25 * n)) for n, it in enumerate(both)]
        done, late = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
        while not any(it.exception() is None for it in done):
            more, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        total += next(it.result() for it in done if it.exception() is None)
        for task in late:
            task.cancel()
    print(f"done: 3 calls, {total} bytes")


asyncio.run(main())
