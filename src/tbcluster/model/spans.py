"""Which bytes of a model's files each stage reads: what a node has to fetch.

With these bytes in place and anything in place of all others, `loading.load_stage` gives the same
weights as with all of them.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tbcluster.checkpoint import Span, is_fetched, merged
from tbcluster.core import StageRange
from tbcluster.errors import CorruptModelError
from tbcluster.model.facts import InspectedModel
from tbcluster.model.sources import weight_files
from tbcluster.model.tracer import needed_parameters

# A safetensors file begins with the length of its header, in so many bytes.
PREFIX_BYTES = 8
# Small files that are not beside the weights: how an embedding model pools.
IN_FOLDERS = ("1_Pooling/config.json",)


def spans_of(
    inspected: InspectedModel, ranges: Sequence[StageRange]
) -> tuple[tuple[Span, ...], ...]:
    """For each stage the bytes that it needs: the tensors that its parameters are made of, the
    headers of all weight files, and all small files whole. Adjacent ones are one.

    Raises:
        CorruptModelError: A weight file's header cannot be read.
    """
    path, opened = inspected.folder.path, inspected.opened
    always, tensors = _headers(weight_files(path))
    always += [Span(name, 0, (path / name).stat().st_size) for name in _small_files(path)]
    return tuple(
        merged([*always, *(span for name in names for span in tensors[name])])
        for stage in ranges
        for names in (opened.needed_tensors(_needed(inspected, stage)),)
    )


def _needed(inspected: InspectedModel, stage: StageRange) -> set[str]:
    return needed_parameters(inspected.opened.model, inspected.traced, stage.start, stage.end)


def _headers(files: Sequence[Path]) -> tuple[list[Span], Mapping[str, list[Span]]]:
    """The spans of the headers, and those of the tensors by name. Of a name that is in several
    files all are kept: which one mlx-lm takes depends on the order it finds them in."""
    headers: list[Span] = []
    tensors: defaultdict[str, list[Span]] = defaultdict(list)
    for file in files:
        try:
            with file.open("rb") as opened:
                length = int.from_bytes(opened.read(PREFIX_BYTES), "little")
                entries = json.loads(opened.read(length))
            start = PREFIX_BYTES + length
            headers.append(Span(file.name, 0, start))
            entries.pop("__metadata__", None)
            for name, entry in entries.items():
                first, end = entry["data_offsets"]
                tensors[name].append(Span(file.name, start + first, end - first))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CorruptModelError(f"{file} has no usable header: {error}") from error
    return headers, tensors


def _small_files(path: Path) -> Iterator[str]:
    """Names of the files that are no weights, as they are fetched from the hub."""
    for file in sorted(path.iterdir()):
        if file.suffix != ".safetensors" and is_fetched(file.name):
            yield file.name
    yield from (name for name in IN_FOLDERS if (path / name).is_file())
