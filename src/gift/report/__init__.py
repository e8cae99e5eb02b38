"""A page made from a demonstration's record alone."""

from gift.report.page import write_page

__all__ = ["write_page"]
