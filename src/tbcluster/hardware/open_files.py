"""How many files and sockets this process may have open at once."""

import resource


def raise_open_files(wanted: int) -> int | None:
    """Raise the soft limit to `wanted`, as far as the hard one lets it, and return what it is then;
    None for no limit. macOS starts services with 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
