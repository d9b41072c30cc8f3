"""The cache operations: everything that changes a stage's caches besides computing.

They travel inside the numbered steps, in one order, through every stage; a stage applies those of a
step before it computes the step's micro-batch. msgspec structs: a tagged union on the wire.
"""

import msgspec

from tbcluster.core import LogitRules, TokenId


class NewCache(msgspec.Struct, frozen=True, tag_field="op", tag="new", array_like=True):
    """Cache operation: make an empty KV cache for one sequence."""

    cache_id: int


class CopyCache(msgspec.Struct, frozen=True, tag_field="op", tag="copy", array_like=True):
    """Cache operation: make a cache equal to `source`, less its last `num_trimmed` tokens."""

    cache_id: int
    source: int
    num_trimmed: int


class JoinLane(msgspec.Struct, frozen=True, tag_field="op", tag="join", array_like=True):
    """Cache operation: the sources become the last rows of a lane, which is made if it is not
    there, and are gone."""

    cache_id: int
    sources: tuple[int, ...]


class TakeRow(msgspec.Struct, frozen=True, tag_field="op", tag="take", array_like=True):
    """Cache operation: make a cache equal to one row of a lane; the lane stays as it is."""

    cache_id: int
    lane: int
    row: int


class KeepRows(msgspec.Struct, frozen=True, tag_field="op", tag="keep", array_like=True):
    """Cache operation: drop all other rows of a lane (at least one row is kept)."""

    cache_id: int
    rows: tuple[int, ...]


class DropCache(msgspec.Struct, frozen=True, tag_field="op", tag="drop", array_like=True):
    """Cache operation: free a cache or a lane."""

    cache_id: int


class SaveCache(msgspec.Struct, frozen=True, tag_field="op", tag="save", array_like=True):
    """Cache operation: write a cache to this stage's disk under `name`."""

    cache_id: int
    name: str


class LoadCache(msgspec.Struct, frozen=True, tag_field="op", tag="load", array_like=True):
    """Cache operation: read a cache that was saved under `name`."""

    cache_id: int
    name: str


class ForgetSaved(msgspec.Struct, frozen=True, tag_field="op", tag="forget", array_like=True):
    """Cache operation: delete what was saved under `name`."""

    name: str


class KeepSaved(msgspec.Struct, frozen=True, tag_field="op", tag="keep_saved", array_like=True):
    """Cache operation: delete all that was saved under other names, and what a writer that was
    killed has left unfinished."""

    names: tuple[str, ...]


class NewRules(msgspec.Struct, frozen=True, tag_field="op", tag="rules", array_like=True):
    """Operation of the last stage: keep the state of a request's logit rules.

    `prompt` is empty where no rule looks at it; `generated` is what was generated already (by a
    request that was preempted or has moved)."""

    rules_id: int
    rules: LogitRules
    prompt: tuple[TokenId, ...]
    generated: tuple[TokenId, ...]


class DropRules(msgspec.Struct, frozen=True, tag_field="op", tag="drop_rules", array_like=True):
    """Operation of the last stage: free the state of logit rules."""

    rules_id: int


CacheOperation = (
    NewCache
    | CopyCache
    | JoinLane
    | TakeRow
    | KeepRows
    | DropCache
    | SaveCache
    | LoadCache
    | ForgetSaved
    | KeepSaved
    | NewRules
    | DropRules
)
