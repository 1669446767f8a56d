"""The report: its typed content, and its renderings as a page, as Markdown and as JSON."""
