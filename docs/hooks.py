"""What the site needs and a repository's page does not: links to files outside docs/ become their names."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./(?!reference/|notebooks/)([^)#]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """``[text](../file)`` becomes ``text (`file`)``: the site has no such page, the repository has the file."""
    return _OUTSIDE.sub(lambda match: f"{match[1]} (`{match[2]}`)", markdown)
