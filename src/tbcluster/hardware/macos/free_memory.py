"""How much memory programs may still take, as `memory_pressure -Q` and `vm_stat` tell it."""

import re

_TOTAL = re.compile(r"The system has (\d{1,19}) ")
_FREE_PERCENT = re.compile(r"memory free percentage:\s*(\d{1,3})%")
_PAGE_SIZE = re.compile(r"page size of (\d{1,9}) bytes")
_PAGES = re.compile(r"Pages (free|inactive|speculative):\s*(\d{1,15})\.")


def available_by_pressure(text: str) -> int | None:
    """Bytes by `memory_pressure -Q`: the system's own estimate, in percent."""
    total, percent = _TOTAL.search(text), _FREE_PERCENT.search(text)
    return int(total[1]) * int(percent[1]) // 100 if total and percent else None


def available_by_pages(text: str) -> int | None:
    """Bytes by `vm_stat`: pages that are free, or were not used for long."""
    size, pages = _PAGE_SIZE.search(text), dict(_PAGES.findall(text))
    return int(size[1]) * sum(map(int, pages.values())) if size and "free" in pages else None
