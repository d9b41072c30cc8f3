"""Chips that a user describes, in a rack file or in chips.toml in the settings folder."""

from functools import cache
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tbcluster.cluster.toml_files import read_tables, refusal
from tbcluster.hardware.chips import Backend, Chip, chip_of

NAME = "chips.toml"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ChipName = Annotated[str, Field(min_length=1, max_length=64)]


class ChipTable(BaseModel):
    """A [[chips]] table; see `hardware.chips.Chip`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: ChipName
    bandwidth_gbs: Positive
    tflops: Positive
    tensor_tflops: Positive | None = None
    gpu_cores: Annotated[int, Field(gt=0)] | None = None
    memory_gb: Positive | None = None
    backend: Backend = "Metal GPU"
    idle_w: Positive | None = None
    max_w: Positive | None = None
    price_usd: Positive | None = None

    @model_validator(mode="after")
    def _figures_agree(self) -> Self:
        if (self.idle_w is None) != (self.max_w is None):
            raise refusal(f"{self.name} has one of idle_w and max_w: give both, or neither")
        if self.idle_w is not None and self.max_w is not None and self.idle_w > self.max_w:
            raise refusal(
                f"{self.name}: idle_w is {self.idle_w:g}, more than max_w, {self.max_w:g}: "
                "exchange them"
            )
        if self.price_usd is not None and self.memory_gb is None:
            raise refusal(f"{self.name} has a price_usd: say of how much memory_gb")
        return self

    def chip(self) -> Chip:
        """As the catalogue has others."""
        fields = self.model_dump()
        price = fields.pop("price_usd")
        prices = {} if price is None or self.memory_gb is None else {str(self.memory_gb): price}
        return chip_of({**fields, "prices": prices}, {})


class ChipFile(BaseModel):
    """The file of a user's own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    chips: Annotated[tuple[ChipTable, ...], Field(strict=False)] = ()


@cache
def own_chips(folder: Path) -> tuple[Chip, ...]:
    """Those of the file in this folder; none where there is no file.

    Raises:
        RackFileError: It cannot be read, or a table of it; names the field, its value and what to
            write instead.
    """
    path = folder / NAME
    if not path.exists():
        return ()
    tables = read_tables(path, ChipFile, "list of chips", ("chips",), "configs/README.md")
    return tuple(table.chip() for table in tables.chips)
