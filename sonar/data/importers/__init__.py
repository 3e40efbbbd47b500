"""Published corpora, tables and containers as they lie on disk -> what they list."""

from sonar.data.importers.importer import Importer, ImportOptions, Listing
from sonar.data.importers.registry import IMPORTERS, find_importer, markdown_table

__all__ = ["IMPORTERS", "ImportOptions", "Importer", "Listing", "find_importer", "markdown_table"]
