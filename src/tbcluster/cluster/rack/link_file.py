"""The measured links on the head node's disk, kept from one run to the next."""

import logging

from tbcluster.cluster.rack.link_book import SavedLink, decode_links
from tbcluster.errors import TrustError, WireError
from tbcluster.hardware.private_file import PrivateFile

logger = logging.getLogger(__name__)


class LinkFile:
    """What was measured. A file that cannot be used costs no more than measuring anew."""

    def __init__(self, file: PrivateFile) -> None:
        self._file = file

    def load(self) -> list[SavedLink]:
        """What was saved last; nothing where there is none."""
        content = self._file.read()
        try:
            return decode_links(content) if content is not None else []
        except WireError as error:
            logger.warning("%s: the links are measured anew", error)
            return []

    def save(self, content: bytes) -> None:
        """Keep this instead."""
        try:
            with self._file.locked():
                self._file.replace(content)
        except TrustError as error:
            # A full disk ends no coordinator.
            logger.warning("%s: the links will be measured anew the next time", error)
