"""A client of WebSocket, of PyPI's websockets, over HTTP/1.1.

usage: websocket_client.py url [ca.pem]; one line of JSON for each case.
"""
import asyncio
import hashlib
import json
import os
import ssl
import sys

import websockets
from websockets.asyncio.client import connect

BASE = sys.argv[1]
CONTEXT = ssl.create_default_context(cafile=sys.argv[2]) if len(sys.argv) > 2 else None


def open_(path, **more):
    return connect(BASE + path, ssl=CONTEXT, max_size=64 << 20, ping_interval=None, proxy=None, **more)


def same(got, want):
    if got != want:
        raise AssertionError(f"got {str(got)[:80]}, want {str(want)[:80]}")


async def text():
    async with open_("/echo") as ws:
        await ws.send("héllo")
        same(await ws.recv(), "héllo")


async def uncompressed_mebibyte():
    data = os.urandom(1 << 20)
    async with open_("/echo", compression=None) as ws:
        await ws.send(data)
        same(hashlib.sha256(await ws.recv()).hexdigest(), hashlib.sha256(data).hexdigest())


async def compressed_mebibyte():
    data = "repeat " * 150000
    async with open_("/echo") as ws:
        await ws.send(data)
        same(len(await ws.recv()), len(data))


async def fragments():
    async with open_("/echo") as ws:
        await ws.send(["one ", "two ", "three"])
        same(await ws.recv(), "one two three")


async def client_pings():
    async with open_("/echo") as ws:
        for _ in range(10):
            await (await ws.ping(b"are you there"))


async def server_pings():
    async with open_("/ping") as ws:
        same(await ws.recv(), "pong from the server")


async def closes(code):
    async with open_(f"/close/{code}") as ws:
        try:
            await ws.recv()
        except websockets.ConnectionClosed as e:
            same((e.rcvd.code, e.rcvd.reason), (code, "as asked"))
            return
    raise AssertionError("not closed")


async def client_closes():
    async with open_("/echo") as ws:
        await ws.close(3999, "enough")
        same(ws.close_code, 3999)
    async with open_("/closed") as ws:
        same(json.loads(await ws.recv()), {"code": 3999, "reason": "enough"})


async def subprotocol():
    async with open_("/echo", subprotocols=["chat"]) as ws:
        same(ws.subprotocol, "chat")


async def refused():
    try:
        async with open_("/refuse"):
            pass
    except websockets.InvalidStatus as e:
        same(e.response.status_code, 401)
        return
    raise AssertionError("opened")


async def silent_then_speaks():
    async with open_("/echo") as ws:
        await asyncio.sleep(3)
        await ws.send("still here")
        same(await ws.recv(), "still here")


CASES = {
    "text": text, "1 MiB": uncompressed_mebibyte, "1 MiB compressed": compressed_mebibyte, "fragments": fragments,
    "client pings": client_pings, "server pings": server_pings, "server closes 1000": lambda: closes(1000),
    "server closes 1011": lambda: closes(1011), "client closes 3999": client_closes, "subprotocol": subprotocol,
    "refused": refused, "silent, then speaks": silent_then_speaks,
}


async def main():
    for name, run in CASES.items():
        error = ""
        try:
            await asyncio.wait_for(run(), 15)
        except Exception as e:  # every failure is a result
            error = f"{type(e).__name__}: {e}"
        print(json.dumps({"name": name, "error": error}), flush=True)


asyncio.run(main())
