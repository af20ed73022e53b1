"""Which fields of a payload are nobody's business.

class Reset(TypedDict):
    email: Annotated[str, Pii]
    token: Annotated[str, Secret]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["Mark", "Pii", "Secret"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a field holds. It goes into the type's JSON Schema as `x-taskmaster`; see `Secret` and `Pii`."""

    kind: Literal["secret", "pii"]


#: A password, token or key: masked wherever TaskMaster shows a payload, and in the texts of the handler's errors.
Secret: Final = Mark("secret")
#: What tells of a person: masked in the same places.
Pii: Final = Mark("pii")
