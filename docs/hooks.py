"""What mkdocs needs beyond its plugins."""

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    """Make "bash long" and "bash test", which tests run, plain bash, and keep "0.61 ± 0.16" on one line."""
    markdown = re.sub(r"^```bash (long|test)$", "```bash", markdown, flags=re.MULTILINE)
    return re.sub(r"(?<=\d) ± (?=\d)", "\u00a0±\u00a0", markdown)
