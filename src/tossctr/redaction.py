"""Hide passwords and tokens of URLs in everything that is written or printed."""

from __future__ import annotations

import re

HIDDEN = "***"
_USER = re.compile(r"(?<=://)([^/\s:@?#]*):[^/\s@]*@")
_NAMES = (
    "token|access_token|sas|sig|signature|password|passwd|pwd|secret|key|apikey|api_key|"
    "access_key|secret_key|credential|x-amz-[a-z-]+|x-goog-[a-z-]+|awsaccesskeyid"
)
_QUERY = re.compile(rf"([?&](?:{_NAMES})=)[^&#\s'\"]+", re.IGNORECASE)


def redacted(text: str) -> str:
    """The text with `***` for the password (`scheme://user:password@host`) and for secret query
    values (`?token=...`) of every URL in it."""
    if "://" not in text and "=" not in text:
        return text
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1:{HIDDEN}@", text))


def is_redacted(text: str) -> bool:
    """Whether the password or a token of a URL has been hidden."""
    return f":{HIDDEN}@" in text or f"={HIDDEN}" in text
