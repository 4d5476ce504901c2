"""Let ranks meet before they enter a collective, so that a missing one has a name.

MindSpore's own collectives tell nothing about who is missing: on the CPU they fail 30 seconds after the
first rank has entered, even if the others are only late. Rank 0 therefore runs a hub; each rank holds one TCP
connection to it, over which it says what it is about to do and waits until all have said so. A connection
that closes is a rank that has ended. Messages are lines of JSON.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from glm3.domain.collectives import missing_ranks
from glm3.domain.errors import CommunicationError

__all__ = ["Hub", "Rendezvous"]

_CONNECT_SECONDS = 60.0
_GRACE_SECONDS = 5.0
_ROLL_CALL = "gone"


@define
class _Peer:
    connection: socket.socket
    rank: int | None = None
    pending: bytes = b""


@define
class _Meeting:
    members: tuple[int, ...]
    said: dict[int, Any] = field(factory=dict)
    given_up: set[int] = field(factory=set)


class Hub:
    """Serve the meetings of a job; only who knows ``secret`` is listened to."""

    def __init__(self, host: str, secret: str) -> None:
        self._secret = secret
        self._server = socket.create_server((host, 0), backlog=1024)
        self.port: int = self._server.getsockname()[1]
        self._peers: dict[int, _Peer] = {}
        self._gone: set[int] = set()
        self._meetings: dict[str, _Meeting] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="glm3-rendezvous", daemon=True)
        self._thread.start()

    def wait_until_left(self) -> None:
        """Return once every rank has left, or after a few seconds: what was sent to them has arrived."""
        self._thread.join(_GRACE_SECONDS)

    def _serve(self) -> None:
        while not self._gone or self._peers:
            for key, _ in self._selector.select():
                if key.data is None:
                    connection, _ = self._server.accept()
                    self._selector.register(connection, selectors.EVENT_READ, _Peer(connection))
                else:
                    self._read(key.data)
        self._server.close()

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.connection.recv(1 << 16)
        except OSError:
            data = b""
        *lines, peer.pending = (peer.pending + data).split(b"\n")
        for line in lines:
            if not self._handle(peer, line):
                data = b""
                break
        if not data:
            self._selector.unregister(peer.connection)
            peer.connection.close()
            if peer.rank is not None:
                del self._peers[peer.rank]
                self._gone.add(peer.rank)
                self._tell_of_the_gone()

    def _handle(self, peer: _Peer, line: bytes) -> bool:
        """Do what a line says; False hangs up."""
        try:
            said = json.loads(line)
            if peer.rank is None:
                if said["secret"] != self._secret:
                    return False
                peer.rank = int(said["rank"])
                self._peers[peer.rank] = peer
                return True
        except (ValueError, KeyError, TypeError):
            return False
        if said["meeting"] == _ROLL_CALL:
            self._send(peer.rank, {"meeting": _ROLL_CALL, "gone": sorted(self._gone)})
            return True
        name = said["meeting"]
        if "missing" in said:
            if (waited := self._meetings.get(name)) is not None:  # else the answer is on its way
                absent = sorted(set(waited.members) - waited.said.keys())
                waited.given_up.add(peer.rank)
                self._send(peer.rank, {"meeting": name, "missing": absent})
            return True
        meeting = self._meetings.setdefault(name, _Meeting(tuple(said["members"])))
        meeting.said[peer.rank] = said["says"]
        if meeting.given_up:
            self._send(peer.rank, {"meeting": name, "given_up": sorted(meeting.given_up)})
        elif len(meeting.said) == len(meeting.members):
            del self._meetings[name]
            facts = [meeting.said[rank] for rank in meeting.members]
            for rank in meeting.members:
                self._send(rank, {"meeting": name, "said": facts})
        else:
            self._tell_of_the_gone()
        return True

    def _tell_of_the_gone(self) -> None:
        for name, meeting in list(self._meetings.items()):
            gone = sorted(self._gone.intersection(meeting.members) - meeting.said.keys())
            if gone:
                for rank in meeting.said:
                    self._send(rank, {"meeting": name, "gone": gone})

    def _send(self, rank: int, message: dict[str, Any]) -> None:
        peer = self._peers.get(rank)
        if peer is not None:
            try:
                peer.connection.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                return  # its end of the connection is read as closed next


class Rendezvous:
    """One rank's connection to the hub."""

    def __init__(self, address: tuple[str, int], secret: str, rank: int, timeout: float) -> None:
        self._rank, self._timeout = rank, timeout
        try:
            self._connection = socket.create_connection(address, _CONNECT_SECONDS)
        except OSError as error:
            raise CommunicationError(
                "rank 0 cannot be reached",
                missing=(0,),
                expected=f"a connection to {address[0]}:{address[1]}",
                found=str(error),
                hint="open the ports between the hosts of the job",
            ) from error
        self._pending = b""
        self._calls: dict[str, int] = defaultdict(int)
        self._send({"secret": secret, "rank": rank})

    def meet(self, group: str, members: Sequence[int], call: str, fact: Any = None) -> list[Any]:
        """Return the facts that the members brought, by rank, once all are at the same call.

        Raises:
            CommunicationError: a member has ended, does not come in time, or makes another call.
        """
        self._calls[group] += 1
        name = f"{group}:{self._calls[group]}"
        place = {"meeting": name, "members": list(members)}
        self._send({**place, "says": [call, fact]})
        answer = self._receive(name, self._timeout)
        if answer is None:
            self._send({**place, "missing": True})
            answer = self._receive(name, _GRACE_SECONDS) or {"missing": [0]}
        for key, why in (
            ("gone", f"ended before {call}"),
            ("given_up", f"gave up waiting for rank {self._rank} to come to {call}"),
            ("missing", f"did not come to {call} within {self._timeout:g} s"),
        ):
            if key in answer:
                ranks = answer[key]
                raise CommunicationError(
                    f"{missing_ranks(ranks)} missing: {why}",
                    missing=ranks,
                    hint="the log of a missing rank says why it ended",
                )
        said = answer["said"]
        if any(made != call for made, _ in said):
            raise CommunicationError(
                "the ranks make different calls",
                found=", ".join(f"rank {r}: {made}" for r, (made, _) in zip(members, said, strict=True)),
            )
        return [fact for _, fact in said]

    def gone(self) -> list[int]:
        """Return the ranks of the job that have ended."""
        try:
            self._send({"meeting": _ROLL_CALL})
            answer = self._receive(_ROLL_CALL, _GRACE_SECONDS)
        except CommunicationError:
            return [0]
        return [0] if answer is None else list(answer["gone"])

    def close(self) -> None:
        """Leave the job."""
        self._connection.close()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise _rank_zero_gone() from error

    def _receive(self, meeting: str, timeout: float) -> dict[str, Any] | None:
        """Return the hub's next word about a meeting, or None once the time is over."""
        self._connection.settimeout(timeout)
        while True:
            line, newline, rest = self._pending.partition(b"\n")
            if newline:
                self._pending = rest
                answer: dict[str, Any] = json.loads(line)
                if answer["meeting"] == meeting:
                    return answer
                continue
            try:
                data = self._connection.recv(1 << 16)
            except TimeoutError:
                return None
            except OSError as error:
                raise _rank_zero_gone() from error
            if not data:
                raise _rank_zero_gone()
            self._pending += data


def _rank_zero_gone() -> CommunicationError:
    return CommunicationError(
        "rank 0 missing: it has ended",
        missing=(0,),
        hint="the log of a missing rank says why it ended",
    )
