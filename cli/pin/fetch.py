"""A file from the network into memory: bounded in size and time, and never from https to anything else."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import Any

from cli.errors import FAILED, CommandError

MAX_BYTES = 32 << 20
_READ_TIMEOUT_SECONDS = 20
_TIMEOUT_SECONDS = 180


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Refuses a redirect from https to another scheme, which would lose what https proves."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.startswith("https://"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str) -> bytes | None:
    """The content of `url`, or None if the server says that there is no such file. Raises CommandError."""
    opener = urllib.request.build_opener(_SameScheme)
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    try:
        with opener.open(url, timeout=_READ_TIMEOUT_SECONDS) as answer:
            content = bytearray()
            while block := answer.read(1 << 16):
                content += block
                if len(content) > MAX_BYTES:
                    raise CommandError(f"{url} is larger than {MAX_BYTES >> 20} MiB: it is not a manifest", FAILED)
                if time.monotonic() > deadline:
                    raise CommandError(f"{url} was not complete after {_TIMEOUT_SECONDS} s: try again", FAILED)
            length = answer.headers.get("Content-Length")
            if length is not None and int(length) != len(content):
                raise CommandError(f"{url} broke off after {len(content)} of {length} bytes: try again", FAILED)
            return bytes(content)
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            return None
        raise CommandError(f"{url} cannot be fetched: HTTP {error.code} {error.reason}", FAILED) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError):
            return None
        raise CommandError(f"{url} cannot be fetched: {error.reason}", FAILED) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise CommandError(f"{url} cannot be fetched: {reason}", FAILED) from None
