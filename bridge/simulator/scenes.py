"""What CVMs do by themselves: scenes of timed steps, chosen at random.

Most steps last longer than upstream's shortest interval (5 s), so that a stream sees most of them. Between two scenes
a CVM rests. Twelve CVMs together change every second or two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

Scene = tuple["Step", ...]

#: Fields that belong to one status; another status clears them.
PHASE_FIELDS = ("boot_progress", "boot_error", "shutdown_progress", "exited_at")

BOOT_PROGRESS = (
    "initializing",
    "setting up filesystem",
    "requesting app keys",
    "pulling images",
    "starting containers",
)

BOOT_ERRORS = (
    "failed to pull image: manifest unknown",
    "docker compose up failed: port 8080 is already allocated",
    "kms: app not allowed: compose hash is not whitelisted",
    "not enough space left on /dev/vda",
)


@dataclass(frozen=True, slots=True)
class Step:
    """After `delay` seconds: a status (None: the same one) with its fields, or the CVM's end."""

    delay: float
    status: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    end: bool = False
    exits: bool = False


#: Status → the scenes that may follow, with their weights. In any other status a CVM rests.
CHOICES: dict[str, dict[str, int]] = {
    "provisioning": {"boot": 5, "fail": 1},
    "running": {"restart": 5, "crash": 3, "stop": 3, "delete": 1},
    "stopped": {"boot": 6, "delete": 1},
    "exited": {"boot": 6, "delete": 1},
    "error": {"boot": 5, "delete": 2},
}


def next_scene(status: str, random: Random, *, lasting: bool = False) -> Scene:
    """The steps that follow `status`, the first one after a rest; empty for a status without scenes.

    A `lasting` CVM is not deleted: its most likely scene follows instead.
    """
    if (choices := CHOICES.get(status)) is None:
        return ()
    (name,) = random.choices(list(choices), weights=list(choices.values()))
    if lasting and name == "delete":
        name = next(iter(choices))
    # A CVM that runs rests longer than one that does not.
    rest = random.uniform(15, 75) if status == "running" else random.uniform(4, 20)
    return _SCENES[name](random, rest)


def _pause(random: Random) -> float:
    return random.uniform(3, 9)


def _boot(random: Random, rest: float) -> Scene:
    return (*_starting(random, rest, len(BOOT_PROGRESS)), Step(_pause(random), "running"))


def _starting(random: Random, rest: float, steps: int) -> Scene:
    later = (Step(_pause(random), None, {"boot_progress": text}) for text in BOOT_PROGRESS[1:steps])
    return (Step(rest, "starting", {"boot_progress": BOOT_PROGRESS[0]}), *later)


def _fail(random: Random, rest: float) -> Scene:
    steps = random.randint(1, len(BOOT_PROGRESS))
    error = Step(_pause(random), "error", {"boot_error": random.choice(BOOT_ERRORS)}, exits=True)
    return (*_starting(random, rest, steps), error)


def _restart(random: Random, rest: float) -> Scene:
    going = Step(rest, "restarting", {"shutdown_progress": "stopping containers"})
    return (going, *_boot(random, _pause(random)))


def _crash(random: Random, rest: float) -> Scene:
    if random.random() < 0.5:
        return (Step(rest, "exited", exits=True),)
    return (Step(rest, "error", {"boot_error": "container exited with code 137"}, exits=True),)


def _stop(random: Random, rest: float) -> Scene:
    return (
        Step(rest, "stopping", {"shutdown_progress": "stopping containers"}),
        Step(_pause(random), None, {"shutdown_progress": "powering off"}),
        Step(_pause(random), "stopped", exits=True),
    )


def _delete(random: Random, rest: float) -> Scene:
    """Half of the CVMs show `deleted` for a while, the others vanish: upstream may do either."""
    stopping = Step(rest, "stopping", {"shutdown_progress": "deleting"})
    if random.random() < 0.5:
        return (stopping, Step(_pause(random), end=True))
    return (stopping, Step(_pause(random), "deleted"), Step(random.uniform(10, 20), end=True))


_SCENES = {"boot": _boot, "restart": _restart, "crash": _crash, "stop": _stop, "delete": _delete, "fail": _fail}

_WORDS = ["web", "api", "oracle", "agent", "vault", "relay", "signer", "worker", "bot", "proxy", "index", "cache"]


def name_for(number: int, random: Random) -> str:
    """`web-1`, `api-2`, …: unique within a world, as the number is."""
    return f"{_WORDS[number % len(_WORDS)] if number < len(_WORDS) else random.choice(_WORDS)}-{number + 1}"
