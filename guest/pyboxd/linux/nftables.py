"""The kernel's packet rules through libnftables: commands as text in, text or an error out.

Only `Nftables` is here; what the rules say is `network/rules.py`. Constants are from <nftables/libnftables.h>.
A context speaks to the network namespace of the thread that made it, and is used by one thread at a time.
"""

from __future__ import annotations

import ctypes
import errno
import threading
from types import TracebackType

from pyboxd.linux import libc

NFT_CTX_DEFAULT = 0
_running = threading.Lock()  # libnftables keeps some of its state outside the context


def _library() -> ctypes.CDLL:
    library = libc.load_library("libnftables.so.1")
    context = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_new.restype = context
    library.nft_ctx_free.argtypes = [context]
    library.nft_ctx_free.restype = None
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [context]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [context]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = [context, ctypes.c_char_p]
    return library


class Nftables:
    """A libnftables context; a context manager. Methods raise OSError with nft's own message."""

    def __init__(self) -> None:
        self._library = _library()
        self._context: int | None = self._library.nft_ctx_new(NFT_CTX_DEFAULT)
        if not self._context:
            raise OSError(errno.ENOMEM, "cannot make an nftables context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def __enter__(self) -> Nftables:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def run(self, commands: str) -> str:
        """Run the commands as one transaction: all of them or none. What they print is returned."""
        library = self._library
        with _running:
            status = library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output = self._text(library.nft_ctx_get_output_buffer(self._context))
            complaint = self._text(library.nft_ctx_get_error_buffer(self._context))
        if status:
            raise OSError(_errno(complaint), f"cannot change the packet rules: {complaint.strip()}")
        return output

    @staticmethod
    def _text(buffer: bytes | None) -> str:
        return buffer.decode(errors="replace") if buffer else ""


def _errno(complaint: str) -> int:
    """libnftables tells its errors in words only; the one that callers act on is told apart."""
    return errno.ENOENT if "No such file or directory" in complaint else errno.EINVAL
