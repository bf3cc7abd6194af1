"""A file from an address, for `docker import URL`: fetched as ADD fetches, into a folder of the data disk."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder import download
from pyboxd.image.model import RegistrySettings
from pyboxd.image.registry import is_loopback


@asynccontextmanager
async def fetched(
    address: str, settings: RegistrySettings, temporary: str, report: Callable[[int, int], None]
) -> AsyncIterator[str]:
    """The path of the file inside of the block. `report` is told on the loop how many bytes are there, and of how many.

    The user's own computer, `localhost`, is reached as registries on it are. InvalidArgument when it cannot be had.
    """
    parts = download.split_address(address)
    if parts.scheme not in ("http", "https"):
        raise InvalidArgument(f'Get "{address}": unsupported protocol scheme "{parts.scheme}"')
    reached = address
    proxies = {"http_proxy": settings.http_proxy, "https_proxy": settings.https_proxy}
    if is_loopback(parts.netloc):
        proxies = {}
        port = f":{parts.port}" if parts.port else ""
        reached = parts._replace(netloc=f"{settings.gateway}{port}").geturl()
    loop = asyncio.get_running_loop()

    def told(done: int, total: int) -> None:
        loop.call_soon_threadsafe(report, done, total)

    folder = f"{temporary}/import-{secrets.token_hex(16)}"
    os.makedirs(folder)
    try:
        try:
            found = await download.fetch(reached, "", folder, proxies, "", told)
        except InvalidArgument as error:
            raise InvalidArgument(str(error).replace(reached, address)) from error
        yield found.path
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
