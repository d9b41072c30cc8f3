"""What is answered before the cluster can answer: that it is starting, and with what."""

from starlette.types import ASGIApp, Receive, Scope, Send

from tbcluster.cluster.models.models import Models
from tbcluster.cluster.status import ClusterState
from tbcluster.errors import ClusterClosedError
from tbcluster.server.problems import RETRY_AFTER_S, Refusal, answer, refusal_of


class Front:
    """Hands each request on to the application of the moment: connections outlive a change."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self.app(scope, receive, send)


class NotYet:
    """An application that asks every request to come again, and says why."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await answer(scope, self._refusal())(scope, receive, send)

    def _refusal(self) -> Refusal:
        status = self._models.status()
        if status.state is ClusterState.CLOSED:  # it did not come up: the server ends
            return refusal_of(ClusterClosedError("the server is shutting down"))
        doing = f" ({status.doing})" if status.doing is not None else ""
        return Refusal(
            503,
            f"{status.model or 'tbcluster'} is being started{doing}: send the request again later",
            kind="server_error",
            code="starting",
            retry_after_s=RETRY_AFTER_S,
        )
