"""Reading from the Hugging Face hub: what a model consists of, and ranges of its files' bytes.

`HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` are honoured. A token goes to the hub of this
machine's own settings only, whoever names another one, and to no other host: httpx takes it off
when it follows a redirect.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import httpx
from huggingface_hub import HfApi, ModelInfo, constants, get_session, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
)

from tbcluster.checkpoint import ListedFile, Listing, Span, is_fetched
from tbcluster.errors import FetchError, ModelNotFoundError

CONNECT_S = 10.0
# The same, to see whether it is there.
TRY_S = 4.0
# Seconds between tries, as long as no byte comes.
RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
MAX_RETRY_AFTER_S = 60.0
# For a listing: whoever started the command waits.
LISTING_S = 10.0
LISTING_DELAYS_S = (0.5, 1.0)
_REFUSALS = (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx.HTTPError)
_PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504}


class _PassingError(Exception):
    """Something that another try may mend."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class Hub:
    """One hub. Thread-safe.

    Args:
        endpoint: Its address; empty for the one of this machine's settings.
    """

    def __init__(self, endpoint: str = "", sleep: Callable[[float], None] = time.sleep) -> None:
        self.endpoint = endpoint.rstrip("/") or constants.ENDPOINT
        self._sleep = sleep
        # False: none at all, even if there is one.
        self._token = None if self.endpoint == constants.ENDPOINT.rstrip("/") else False
        self._api = HfApi(endpoint=self.endpoint, token=self._token)

    def listing(self, model: str) -> Listing:
        """What a model consists of now; the headers of its weights are not known from this.

        Raises:
            ModelNotFoundError: There is no such repository, or it is private.
            FetchError: The hub cannot be reached, or does not let this machine in.
        """
        info = self._model_info(model)
        files = [
            ListedFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or ()
            if is_fetched(file.rfilename)
        ]
        if info.sha is None or not files:
            raise ModelNotFoundError(
                f"the repository {model!r} at {self.endpoint} holds no model that can be used: no "
                "config.json, no model*.safetensors"
            )
        return Listing(model, info.sha, model, tuple(sorted(files, key=lambda file: file.path)))

    def stream(self, model: str, revision: str, span: Span, file_bytes: int) -> Iterator[bytes]:
        """Bytes of a file at one commit, in order; a connection that is cut is made again.

        Args:
            file_bytes: The size that the file is known to have.

        Raises:
            ModelNotFoundError: There is no such repository, or it is private.
            FetchError: The hub cannot be reached, has another file, or does not let this machine
                in.
        """
        url = self._url(model, revision, span.file)
        offset, tries = span.offset, 0
        while offset < span.end:
            try:
                rest = Span(span.file, offset, span.end - offset)
                for chunk in self._read(url, rest, file_bytes):
                    tries = 0
                    offset += len(chunk)
                    yield chunk
            except (httpx.TransportError, _PassingError) as error:
                tries += 1
                self._wait(error, tries, RETRY_DELAYS_S, f"{model}/{span.file}")
            except _REFUSALS as error:
                self._explain(error, model)

    def read(self, model: str, revision: str, span: Span, file_bytes: int) -> bytes:
        """As `stream`, all at once."""
        return b"".join(self.stream(model, revision, span, file_bytes))

    def gives(self, listing: Listing) -> bool:
        """Whether this machine gets a model's bytes from it, as far as one byte tells. A hub that
        is busy counts as one that does. It is asked once; a name that cannot be looked up may still
        take longer than `TRY_S`."""
        file = next((file for file in listing.files if file.holds_weights), listing.files[0])
        url = self._url(listing.model, listing.revision, file.path)
        try:
            for _ in self._read(url, Span(file.path, 0, 1), file.size, TRY_S):
                pass
        except _PassingError:
            return True
        except (FetchError, *_REFUSALS):
            return False
        return True

    def _url(self, model: str, revision: str, file: str) -> str:
        return hf_hub_url(model, file, revision=revision, endpoint=self.endpoint)

    def _read(
        self, url: str, span: Span, file_bytes: int, connect_s: float = CONNECT_S
    ) -> Iterator[bytes]:
        headers = build_hf_headers(token=self._token, library_name="tbcluster")
        headers["Accept-Encoding"] = "identity"
        is_all = (span.offset, span.length) == (0, file_bytes)
        if not is_all:
            headers["Range"] = f"bytes={span.offset}-{span.end - 1}"
        timeout = httpx.Timeout(constants.HF_HUB_DOWNLOAD_TIMEOUT, connect=connect_s, pool=None)
        with get_session().stream(
            "GET", url, headers=headers, timeout=timeout, follow_redirects=True
        ) as response:
            self._check(response, span, file_bytes)
            left = span.length
            # To its end, so that the connection can be used again.
            for chunk in response.iter_raw():
                if chunk[:left]:
                    yield chunk[:left]
                left = max(0, left - len(chunk))
            if left:
                raise _PassingError(f"the answer ended {left} bytes early")

    def _check(self, response: httpx.Response, span: Span, file_bytes: int) -> None:
        """Whether this is an answer with just the bytes that were asked for."""
        status = response.status_code
        is_elsewhere = not str(response.url).startswith(self.endpoint)
        # A signed address of a redirect's is valid for a while only: the hub makes another.
        if status in _PASSING_STATUSES or (is_elsewhere and status in (401, 403)):
            raise _PassingError(f"it answers {status}", _retry_after(response))
        if status >= 400:
            response.read()
            hf_raise_for_status(response)
        if status == 206:
            found = response.headers.get("Content-Range", "")
            wanted = f"bytes {span.offset}-{span.end - 1}/{file_bytes}"
            if found != wanted:
                raise FetchError(
                    f"{span.file} is not the file that was listed: the hub answers {found!r} where "
                    f"{wanted!r} was expected"
                )
        elif status != 200 or span.offset or span.length != file_bytes:
            raise FetchError(
                f"{self.endpoint} answers {status} where a range of bytes was asked for: it cannot "
                "be used as a hub"
            )
        elif int(response.headers.get("Content-Length", file_bytes)) != file_bytes:
            raise FetchError(
                f"{span.file} is not the file that was listed: it has "
                f"{response.headers['Content-Length']} bytes instead of {file_bytes}"
            )

    def _model_info(self, model: str) -> ModelInfo:
        tries = 0
        while True:
            try:
                return self._api.model_info(model, files_metadata=True, timeout=LISTING_S)
            except httpx.TransportError as error:
                problem: Exception = error
            except HfHubHTTPError as error:
                if error.response.status_code not in _PASSING_STATUSES:
                    self._explain(error, model)
                problem = _PassingError(f"it answers {error.response.status_code}")
            except _REFUSALS as error:
                self._explain(error, model)
            tries += 1
            self._wait(problem, tries, LISTING_DELAYS_S, model)

    def _wait(self, error: Exception, tries: int, delays_s: Sequence[float], what: str) -> None:
        """Before the next try, or give up."""
        if tries > len(delays_s):
            raise FetchError(
                f"{what} cannot be read from {self.endpoint}: {error or type(error).__name__}; see "
                "whether this machine reaches it and start again (what has been fetched is kept)"
            ) from error
        asked = error.wait_s if isinstance(error, _PassingError) else 0.0
        self._sleep(max(delays_s[tries - 1], min(asked, MAX_RETRY_AFTER_S)))

    def _explain(self, error: Exception, model: str) -> NoReturn:
        """Say what the hub's refusal means, without its address: that may be a signed one."""
        match error:
            case OfflineModeIsEnabled():
                raise FetchError(
                    f"{model!r} is not all on this machine and offline mode is on "
                    "(HF_HUB_OFFLINE): fetch it first, or give a folder"
                ) from error
            case GatedRepoError():
                raise FetchError(
                    f"{model!r} is gated: accept its conditions at {self.endpoint}/{model}, and "
                    "log in with `hf auth login` on each node, or set HF_TOKEN there"
                ) from error
            case RepositoryNotFoundError() | HFValidationError():
                raise ModelNotFoundError(
                    f"no folder and no Hugging Face repository {model!r}: check the spelling, and "
                    "for a private one log in with `hf auth login`"
                ) from error
            case RevisionNotFoundError() | EntryNotFoundError():
                raise FetchError(
                    f"{model!r} at {self.endpoint} no longer has the files that were listed: "
                    "start again"
                ) from error
            case HfHubHTTPError():
                status = error.response.status_code
                raise FetchError(
                    f"{self.endpoint} refuses {model!r} with status {status}: see whether the "
                    "token in HF_TOKEN, or of `hf auth login`, is valid"
                ) from error
        raise FetchError(f"{model!r} cannot be read from {self.endpoint}: {error}") from error


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the hub asks to wait; 0 where it does not."""
    try:
        return float(response.headers.get("Retry-After", "0"))
    except ValueError:  # a date
        return 0.0
