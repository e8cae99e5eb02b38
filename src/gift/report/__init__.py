"""Pages made from the record of a demonstration or of a grid alone."""

from gift.report.choose import write_report
from gift.report.grid_page import write_grid_page
from gift.report.page import write_page

__all__ = ["write_grid_page", "write_page", "write_report"]
