"""What was set aside: list it, look at it, let it be heard again, or let it go. No instance needs to run."""

import getpass
import os
import socket
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from runtime.commands.dead_words import body_of, decided, in_words, lines, render_letters, summary
from runtime.commands.output import write_json
from runtime.commands.running import tell
from runtime.config_variables import Config
from runtime.dead_letters import Buried, LetterError, drop, read_letters, read_whole, replay
from runtime.letters import Decision
from runtime.log import Log, LogError
from runtime.reading import open_broker

Decide = Callable[[Log, Buried], Awaitable[Decision]]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters: of an actor (`order`) or a shard (`order.1`), with a text in the reason, of the last `since_s`."""

    actor: str | None = None
    reason: str | None = None
    since_s: float | None = None
    with_decided: bool = False

    def takes(self, buried: Buried) -> bool:
        actor = buried.shard.partition(".")[0]
        since_ms = 0 if self.since_s is None else (time.time() - self.since_s) * 1000
        return (
            (self.with_decided or buried.is_open)
            and self.actor in (None, actor, buried.shard)
            and (self.reason or "").lower() in (buried.letter.reason or buried.damage).lower()
            and buried.entry.time_ms >= since_ms
        )


async def list_letters(config: Config, wanted: Filter, as_json: bool) -> None:
    """Print the letters that are wanted, oldest first."""
    async with open_broker(config) as log:
        letters = await read_letters(log)
    found = [buried for buried in letters.values() if wanted.takes(buried)]
    if as_json:
        await write_json([summary(buried) for buried in found])
        return
    still_open = sum(buried.is_open for buried in letters.values())
    console = Console()
    if found:
        console.print(render_letters(found))
    console.print(f"{len(found)} shown; {still_open} open, {len(letters) - still_open} decided")


async def show_letter(config: Config, letter_id: str, as_json: bool) -> None:
    """Print all that is known of one letter.

    Raises:
        LetterError: there is no such letter.
    """
    async with open_broker(config) as log:
        (buried,) = _named([letter_id], await read_letters(log))
        letter = buried.letter if buried.damage else await read_whole(log, buried)
    told = {
        **summary(buried),
        "headers": dict(buried.entry.headers),
        "body": body_of(letter),
        "payload": b64encode(letter.payload).decode(),
        "replay": f"orders dead replay {buried.id}",
    }
    if as_json:
        await write_json(told)
        return
    table = Table(show_header=False, box=None)
    for name, value in told.items():
        for line in lines(name, value):
            table.add_row(*line)
    Console().print(table)


async def replay_letters(config: Config, ids: Sequence[str], anew: bool) -> None:
    """Let these letters be heard again; every open one where none is named.

    Raises:
        LetterError: some could not be, or are decided already and `anew` does not say to do it again.
    """
    by = whoever_we_are()
    await _decide_on(config, ids, lambda log, buried: replay(log, buried, by), anew)


async def drop_letters(config: Config, ids: Sequence[str], reason: str, anew: bool) -> None:
    """Let these letters go; every open one where none is named. Raises like `replay_letters`."""
    by = whoever_we_are()
    await _decide_on(config, ids, lambda log, buried: drop(log, buried, by, reason), anew)


async def _decide_on(config: Config, ids: Sequence[str], decide: Decide, anew: bool) -> None:
    async with open_broker(config) as log:
        letters = await read_letters(log)
        chosen = _named(ids, letters) if ids else [one for one in letters.values() if one.is_open]
        failed = 0
        for buried in chosen:
            try:
                tell(f"{buried.id}: {await _decide_once(log, buried, decide, anew)}")
            except LetterError as error:
                failed += 1
                tell(error)
            except LogError as error:
                failed += 1
                tell(f"{buried.id}: {error}")
    if failed:
        raise LetterError(f"{failed} of {len(chosen)} letters are as they were")
    if not chosen:
        tell("there are no open dead letters")


async def _decide_once(log: Log, buried: Buried, decide: Decide, anew: bool) -> str:
    if buried.decision is not None and not anew:
        raise LetterError(
            f"{buried.id}: {decided(buried)}; nothing was done (--again does it again)"
        )
    return in_words(await decide(log, buried))


def _named(ids: Sequence[str], letters: Mapping[str, Buried]) -> list[Buried]:
    unknown = [each for each in ids if each not in letters]
    if unknown:
        raise LetterError(
            f"there is no dead letter {', '.join(unknown)}: see `orders dead list --all`"
        )
    return [letters[each] for each in ids]


def whoever_we_are() -> str:
    """Who decides: the user and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # A container may run as a number without a name.
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
