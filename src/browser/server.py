"""What a backend needs of nudged: publishing, and tickets for its pages. Python 3.9 or newer, the standard library only.

    from nudged import Publisher, ticket  # a copy of this file, as nudged.py

    nudged = Publisher("http://10.0.0.5:6835", os.environ["NUDGED_PUBLISH_KEY"])
    nudged.publish("acme", ["posts", f"post:{id}"])  # now; raises if it is not accepted
    nudged.enqueue("acme", ["posts", f"post:{id}"])  # with the next batch; never raises, never waits for the network
    nudged.close()  # where the application ends: sends what is queued

Publish AFTER the COMMIT: a page that reads before it gets what is stale, and is not notified again.

    transaction.on_commit(lambda: nudged.enqueue("acme", ["posts"]))  # Django

    with Session.begin() as session:  # SQLAlchemy
        session.add(Post(text=text))
    nudged.enqueue("acme", ["posts"])  # a rollback has raised

A process that dies between the COMMIT and the publish has lost it. What must survive that, or a server that is away
while streams are open, is a row of an outbox, written by the transaction (`nudged --outbox`).

`publish` sends once more if there is no response within `timeout` seconds, and after a 5xx, or a 429 that says when to
come back: keys are idempotent, twice costs a second read. Before that it waits 0.3 s, or as long as `retry-after` says;
if that is more than 5 s, it raises at once. Any other status is final. (The timeout is that of each operation of a
socket, as usual in Python.)

`enqueue` collects keys for `window` seconds, each once, and sends them in the same way, up to 100 in a request. If the
server refuses those of one org, it sends the others without them. What is given up is passed to `dropped(org, keys,
error)`, by default a warning in the log "nudged": what is refused, or fails twice; what finds `queue` keys waiting; and
what is left when the time of `close(seconds)` is over, which waits for the request under way.
A process ends when its queue is empty; `os._exit` and a signal that kills lose what is queued.

Threads may share a publisher. The queue is sent by a thread, so that a coroutine may call `enqueue`; `publish` blocks:
`await asyncio.to_thread(nudged.publish, "acme", ["posts"])`.
"""

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import logging
import re
import threading
import time
import urllib.parse
from typing import Callable, Iterable, Optional, Union

BATCH_KEYS = 100  # of 512 bytes, they fit into 64 KiB (--key-bytes, --publish-bytes)
RETRY = 0.3
RETRY_AFTER_MAX = 5.0

_log = logging.getLogger("nudged")


class PublishError(Exception):
    """Why keys were not published. `status` and `detail` are those of the response, if there is one; `retry_after` is when
    the server asks to come back, in seconds; with `temporary` the same may succeed later."""

    def __init__(self, message, *, status=None, detail="", retry_after=0.0, temporary=False):
        super().__init__(message)
        self.status, self.detail, self.retry_after, self.temporary = status, detail, retry_after, temporary


class Publisher:
    def __init__(
        self, url: str, token: Union[str, Callable[[], str], None] = None, *, timeout: float = 2.0, window: float = 0.05,
        queue: int = 10_000, dropped: Optional[Callable[[str, Iterable[str], Exception], object]] = None,
    ):
        """`token` is a publish key, a token with the scope publish, or a function that returns one for each request."""
        if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url):
            raise ValueError("the url of nudged is like http://10.0.0.5:6835, without a user or a query")
        parts = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/") + "/api/events"
        self._url, self._token, self._timeout, self._window = url, token, timeout, window
        self._queue_max, self._dropped = queue, dropped or _warn
        self._lock = threading.RLock()  # a signal handler may enqueue, too
        self._queue = {}  # (org, key), in their order
        self._thread = None
        self._closing, self._over = threading.Event(), threading.Event()

    def publish(self, org: str, keys: Iterable[str]) -> None:
        """Publishes now. One key need not be in a list."""
        self._send([(org, _checked(org, keys))], time.sleep)

    def enqueue(self, org: str, keys: Iterable[str]) -> None:
        """Publishes with the next batch. Never raises: what is wrong is passed to `dropped`."""
        beyond = []
        try:
            checked = _checked(org, keys)
            with self._lock:
                if self._closing.is_set():
                    raise PublishError("the publisher is closed")
                for key in checked:
                    if len(self._queue) < self._queue_max or (org, key) in self._queue:
                        self._queue[org, key] = None
                    else:
                        beyond.append(key)
                if self._queue and not (self._thread and self._thread.is_alive()):  # it is not after a fork
                    self._thread = threading.Thread(target=self._run, name="nudged", daemon=False)
                    self._thread.start()
        except Exception as error:
            self._drop(org, keys, error)
        if beyond:
            self._drop(org, beyond, PublishError(f"the queue is full: {self._queue_max} keys"))

    def close(self, seconds: float = 5.0) -> None:
        """Sends what is queued at once, for at most so long and one request; what is left is dropped. Ends the queue."""
        with self._lock:
            self._closing.set()
            thread = self._thread
        if thread:
            thread.join(seconds)
            self._over.set()
            thread.join()

    def _run(self):
        while True:
            if len(self._queue) < BATCH_KEYS:
                self._closing.wait(self._window)
            with self._lock:
                lines = self._take()
                if not lines:
                    self._thread = None
                    return
            self._deliver(lines)

    def _take(self):
        lines = {}
        for org, key in list(itertools.islice(self._queue, BATCH_KEYS)):
            del self._queue[org, key]
            lines.setdefault(org, []).append(key)
        return list(lines.items())

    def _deliver(self, lines):
        while lines:
            try:
                if self._over.is_set():
                    raise PublishError("the publisher was closed")
                return self._send(lines, self._over.wait)
            except Exception as error:
                # Nothing of the request was published. If one line is the reason, the detail begins with its number.
                number = re.match(r"line (\d+):", getattr(error, "detail", ""))
                at = int(number[1]) if number else 0
                lost = lines[at - 1 : at] or lines
                lines = [line for line in lines if line not in lost]
                for org, keys in lost:
                    self._drop(org, keys, error)

    def _send(self, lines, wait):
        body = "\n".join(json.dumps({"org": org, "keys": keys}, ensure_ascii=False) for org, keys in lines).encode()
        try:
            return self._post(body)
        except PublishError as error:
            if not error.temporary or error.retry_after > RETRY_AFTER_MAX or wait(max(error.retry_after, RETRY)):
                raise
        return self._post(body)

    def _post(self, body):
        token = (self._token() if callable(self._token) else self._token or "").strip()
        if not re.fullmatch("[!-~]*", token):  # the error of http.client would have the token in it
            raise ValueError("the token has characters that no token has")
        headers = {"content-type": "application/x-ndjson", **({"authorization": f"Bearer {token}"} if token else {})}
        connection = self._connection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            text = response.read(65_536).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            raise PublishError(f"no response of nudged at {self._url}: {why}", temporary=True) from error
        finally:
            connection.close()
        if response.status == 202:
            return
        detail, after = _detail(text), response.headers.get("retry-after", "")
        retry_after = float(after) if after.isdecimal() else 0.0
        raise PublishError(
            f"nudged at {self._url} answered {response.status}: {detail}", status=response.status, detail=detail,
            retry_after=retry_after, temporary=response.status >= 500 or (response.status == 429 and retry_after > 0),
        )

    def _drop(self, org, keys, error):
        try:
            self._dropped(org, keys, error)
        except Exception:
            _log.exception('the function "dropped" failed')


def ticket(
    secret: str, org: str, seconds: float = 60, stream_seconds: float = 12 * 3600, *,
    scope: str = "subscribe", topics: Optional[Iterable[str]] = None,
) -> str:
    """A token with which a page opens the streams of an org for `seconds`; these end after `stream_seconds`. Sign one only
    for a user who has logged in and belongs to the org. With the scope "publish" it is the backend's own, and may be for "*".
    `topics` are names of topics, or "run-*", or "*"; without it, it is for none."""
    if not isinstance(secret, str) or len(secret.encode()) < 32 or re.search(r"\s", secret):
        raise ValueError("a secret has at least 32 bytes and no white space; strip what was read from a file")
    is_org = isinstance(org, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", org)
    if not is_org and not (org == "*" and scope == "publish"):
        raise ValueError(f"an organisation is 1 to 64 of A-Z a-z 0-9 . _ -, first a letter or digit, not {org!r}")
    if seconds <= 0 or stream_seconds <= 0:
        raise ValueError("seconds and stream_seconds are above 0")
    now = time.time()
    claims = {"org": org, "scope": scope, "exp": int(now + seconds), "until": int(now + stream_seconds)}
    if topics is not None:
        claims["topics"] = topics if isinstance(topics, str) else list(topics)
    signed = ".".join(_part(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{_part(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())}"


def _part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _checked(org, keys):
    keys = [keys] if isinstance(keys, str) else list(keys)
    for text in (org, *keys):
        if not isinstance(text, str):
            raise TypeError("an organisation and its keys are strings")
        text.encode()  # raises for half a character, with which no request could be made
    return keys


def _detail(text):
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, LookupError, TypeError):
        return text[:200]


def _warn(org, keys, error):
    _log.warning("not published to %r: %.200s: %s", org, ascii(keys), error)
