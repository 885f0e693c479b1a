"""Writes a comparison into one comment of its pull request: `python comment.py FILE`. Needs only Python's own library.

FILE comes from a job that ran the pull request's code, so it is only text to post; GitHub's API says which pull request
it belongs to. Environment: GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_TOKEN, HEAD_OWNER, HEAD_BRANCH, HEAD_SHA.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

MARKER = "<!-- cni-lab-plan -->"
LIMIT = 65_536
"""Characters that GitHub accepts in a comment."""

PAGE = 100
_TIMEOUT_SECONDS = 30


def ask(method: str, path: str, body: dict[str, str] | None = None, **query: str) -> Any:
    """The answer of GitHub's API. Exits with a message of one line if it fails."""
    url = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}{path}"
    if query:
        url += "?" + urllib.parse.urlencode(query)
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
        "Content-Type": "application/json",
    }
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, headers, method=method), timeout=_TIMEOUT_SECONDS
        ) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"comment: {method} {path}: HTTP {error.code} {error.reason}")
    except OSError as error:
        sys.exit(f"comment: {method} {path}: {error}")


def read(file: Path) -> str:
    """The comment in FILE. Exits if it cannot be one."""
    # A link in the artifact could point at files that only this job may read.
    if file.is_symlink() or not file.is_file():
        sys.exit(f"comment: {file.name} is not a plain file")
    text = file.read_text(encoding="utf-8", errors="replace")
    if not text.startswith(MARKER) or len(text) > LIMIT:
        sys.exit(f"comment: {file.name} does not start with {MARKER}, or has more than {LIMIT} characters")
    return text


def pull_request(sha: str) -> int | None:
    """The number of the open pull request that has this latest commit."""
    head = f"{os.environ['HEAD_OWNER']}:{os.environ['HEAD_BRANCH']}"
    found = ask("GET", "/pulls", state="open", head=head)
    return next((int(pull["number"]) for pull in found if pull["head"]["sha"] == sha), None)


def earlier(number: int) -> int | None:
    """The id of the earlier comment. A comment of another user that starts with the marker is not ours."""
    page = 1
    while True:
        comments = ask("GET", f"/issues/{number}/comments", per_page=str(PAGE), page=str(page))
        for comment in comments:
            if comment["user"]["login"] == "github-actions[bot]" and comment["body"].startswith(MARKER):
                return int(comment["id"])
        if len(comments) < PAGE:
            return None
        page += 1


def main() -> None:
    text = read(Path(sys.argv[1]))
    number = pull_request(os.environ["HEAD_SHA"])
    if number is None:
        print("comment: no open pull request has this latest commit; the run of a newer commit will comment")
        return
    known = earlier(number)
    if known is None:
        ask("POST", f"/issues/{number}/comments", {"body": text})
    else:
        ask("PATCH", f"/issues/comments/{known}", {"body": text})
    print(f"comment: #{number} {'has a new comment' if known is None else 'is up to date'}")


if __name__ == "__main__":
    main()
