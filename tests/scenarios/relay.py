"""A reverse tunnel that is nobody's tool: a TLS connection for each stream.

The agent keeps a control connection to the hub. For each byte on it, it dials
the hub once more, connects to a service inside, and copies both ways.
"""

import argparse
import asyncio
import ssl


def endpoint(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


async def copy(reader, writer):
    while data := await reader.read(16384):
        writer.write(data)
        await writer.drain()
    writer.close()


async def join(one, other):
    await asyncio.gather(copy(one[0], other[1]), copy(other[0], one[1]))


async def agent(options):
    context = ssl.create_default_context(cafile=options.trust)
    streams = set()

    async def stream():
        outside = await asyncio.open_connection(*options.hub, ssl=context)
        outside[1].write(b"d")
        await join(outside, await asyncio.open_connection(*options.connect))

    reader, writer = await asyncio.open_connection(*options.hub, ssl=context)
    writer.write(b"c")
    while await reader.read(1):
        streams.add(asyncio.create_task(stream()))


async def hub(options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*options.certificate)
    waiting = asyncio.Queue()

    async def from_agent(reader, writer):
        if await reader.read(1) == b"d":
            await join((reader, writer), await waiting.get())
            return

        async def from_public(*peer):
            await waiting.put(peer)
            writer.write(b"o")

        await asyncio.start_server(from_public, *options.listen)

    server = await asyncio.start_server(from_agent, *options.hub, ssl=context)
    await server.serve_forever()


parser = argparse.ArgumentParser()
parser.add_argument("role", choices=["agent", "hub"])
parser.add_argument("hub", type=endpoint)
parser.add_argument("--connect", type=endpoint, help="the agent's service")
parser.add_argument("--listen", type=endpoint, help="the hub's public port")
parser.add_argument("--trust")
parser.add_argument("--certificate", nargs=2, metavar=("CERT", "KEY"))
arguments = parser.parse_args()
asyncio.run(agent(arguments) if arguments.role == "agent" else hub(arguments))
