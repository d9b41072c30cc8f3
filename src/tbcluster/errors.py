"""Everything that can go wrong, as a user meets it.

TbclusterError
├── ModelError               the model folder, id or architecture
│   ├── ModelNotFoundError       no such folder or repository
│   ├── CorruptModelError        files are there but cannot be read as a model
│   ├── UnsupportedModelError    the architecture or its code cannot be run here
│   └── ParityError              sharded output differs from unsharded output
├── FetchError               weights cannot be fetched, kept or trusted
│   └── DiskFullError            there is not enough room for them
├── PlanError                the layers cannot be placed as asked
│   └── DoesNotFitError          the rack has too little memory; it says what would fit
├── RequestError             what a client asked for cannot be done as asked
│   ├── UnknownModelError        it names a model that is not served here
│   ├── ModelNotLoadedError      it names a model that is not loaded now
│   ├── ContextLengthError       the prompt does not fit the model's context
│   └── QueueFullError           too many requests are waiting
├── OutOfTimeError           a request took longer than it may
│   └── QueueTimeError           without a token so far; a retry makes sense
├── SlowReaderError          a client takes its answer more slowly than it comes
├── ModelLoadingError        a model is not loaded yet; a retry makes sense
├── NoRoomError              a model does not fit beside those that are loaded
├── WireError                bytes that are no message of this protocol
├── StageError               a stage worker cannot compute or be started
│   ├── StageLostError           its process died; it is being started again
│   ├── StageMemoryError         its node has too little memory for its layers
│   └── StarvedError             too few nodes are left for the model; a retry makes sense
├── PrefixFolderError        the folder for saved prefixes cannot be used, or is in use
├── KeyFileError             the file of API keys cannot be used as asked
├── TrustError               keys, tokens or the list of nodes cannot be used as asked
│   └── JoinError                this machine was not admitted to the cluster
├── RackError                the rack cannot do what was asked
│   ├── UnknownNodeError         no node has this name
│   ├── PortInUseError           the control port is taken: a coordinator runs here already
│   └── NoPathError              no address of a node answers
├── RackFileError            the file that describes a rack cannot be used
├── ServiceError             the system's service cannot be installed, removed or asked
├── EndpointError            no server answers at an address, or it refuses
├── ListenError              the server cannot listen on its address, or may not without keys
└── ClusterClosedError       the cluster is not running: closed, not started, or started twice
"""

# More names than this are not told in a sentence.
MAX_NAMED = 10


class TbclusterError(Exception):
    """Root of all errors that tbcluster raises on purpose."""


class ModelError(TbclusterError):
    """A model cannot be used."""


class ModelNotFoundError(ModelError):
    """No folder and no repository answers to this name."""


class CorruptModelError(ModelError):
    """The model's files are missing, truncated or malformed."""


class UnsupportedModelError(ModelError):
    """The architecture is unknown or needs what tbcluster refuses to run."""


class ParityError(ModelError):
    """Output through the pipeline differs from the unsharded model's."""


class PlanError(TbclusterError):
    """The layers cannot be placed as asked."""


class DoesNotFitError(PlanError):
    """The rack has too little memory for the model and the promise.

    Attributes:
        message: Without the remedies.
        missing_bytes: How much is missing over all nodes.
        remedies: What would fit, a line each.
    """

    def __init__(self, message: str, missing_bytes: int, remedies: tuple[str, ...]) -> None:
        super().__init__("; ".join((message, *remedies)))
        self.message = message
        self.missing_bytes = missing_bytes
        self.remedies = remedies


class SimulationError(TbclusterError):
    """What was to be simulated cannot be; names the value and what to write instead."""


class FetchError(TbclusterError):
    """Weights cannot be fetched, kept or trusted."""


class DiskFullError(FetchError):
    """There is not enough room for them on the disk."""


class RequestError(TbclusterError):
    """A request that cannot be served as asked; `param` names the field at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownModelError(RequestError):
    """The request names a model that is not served here; `served` are those that are."""

    def __init__(self, wanted: str, *served: str) -> None:
        known = " or ".join(map(repr, served[:MAX_NAMED]))
        known = f"use {known}" if known else "there is none to serve"
        super().__init__(f"the model {wanted!r} is not served here: {known}", "model")


class ModelNotLoadedError(RequestError):
    """The request names a model that is known and not loaded; requests do not load it."""

    def __init__(self, wanted: str) -> None:
        super().__init__(
            f"the model {wanted!r} is not loaded: load it with `tbcluster load {wanted}`, or start "
            "the server with --load-on-use",
            "model",
        )


class ContextLengthError(RequestError):
    """The prompt does not fit the model's context."""


class QueueFullError(RequestError):
    """Too many requests are waiting; try again later."""


class OutOfTimeError(TbclusterError):
    """A request waited or ran for longer than it may."""


class QueueTimeError(OutOfTimeError):
    """A request waited for its first token for longer than it may; a retry makes sense."""


class SlowReaderError(TbclusterError):
    """A client takes its answer so slowly that too much of it waits."""


class ModelLoadingError(TbclusterError):
    """A model is being loaded, or waits for its turn; a retry makes sense."""


class NoRoomError(TbclusterError):
    """A model does not fit beside those that are loaded, and they cannot or may not go."""


class WireError(TbclusterError):
    """Bytes that do not parse as a message of this protocol version."""


class StageError(TbclusterError):
    """A stage worker cannot compute or cannot be started."""


class StageLostError(StageError):
    """A stage worker's process died; it is being started again, so a retry makes sense."""


class StageMemoryError(StageError):
    """A stage's layers do not fit into the memory of its node as it is now. Started again there it
    would most likely fail again."""


class StarvedError(StageError):
    """The nodes that are left have too little memory for the model. It is served again when more
    of them are there, so a retry makes sense; the message says what is missing."""


class PrefixFolderError(TbclusterError):
    """The folder for saved prefixes cannot be used, or another coordinator uses it."""


class KeyFileError(TbclusterError):
    """The file of API keys cannot be used as asked."""


class TrustError(TbclusterError):
    """Keys, tokens or the list of nodes cannot be used as asked."""


class JoinError(TrustError):
    """This machine was not admitted to the cluster."""


class RackError(TbclusterError):
    """The rack cannot do what was asked of it."""


class UnknownNodeError(RackError):
    """No node of the cluster has this name or id."""


class PortInUseError(RackError):
    """The control port is taken, most likely by a coordinator that runs here already."""


class NoPathError(RackError):
    """A node answers on none of its addresses."""


class RackFileError(TbclusterError):
    """The file that describes a rack cannot be read or used."""


class ServiceError(TbclusterError):
    """The system's service cannot be installed, removed or asked."""


class EndpointError(TbclusterError):
    """No server answers at an address, or it does not do what was asked."""


class OutputFileError(TbclusterError):
    """A file that was asked for cannot be written."""


class ListenError(TbclusterError):
    """The server cannot listen on its address, or may not without keys."""


class ClusterClosedError(TbclusterError):
    """The cluster is not running: it was closed, not started, or started twice."""
