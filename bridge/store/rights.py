"""What the bridge's user may do in Redis, and nothing else (docs/contract.md#redis-urls)."""

from __future__ import annotations

_RIGHTS = (
    "+@string +@hash +@list +@set +@sortedset +@stream -@dangerous",
    "+del +exists +rename +type +multi +exec +eval +evalsha +publish +subscribe +unsubscribe +ping +time",
    "+info +wait +expire",
)
_OF_A_CLUSTER = "+cluster|slots +command"


def rights(user: str, namespace: str, *, cluster: bool, new: bool) -> list[str]:
    """The lines of one command, as a person types it at redis-cli. `new`: the user is made, with a password to replace;
    else it keeps the passwords that it has.
    """
    names = f"{{{namespace}}}:*"
    made = "on >password " if new else ""
    first = f"ACL SETUSER {user} {made}resetkeys ~{names} resetchannels &{names} nocommands"
    return [first, *(f"    {each}" for each in _RIGHTS), *([f"    {_OF_A_CLUSTER}"] if cluster else [])]
