"""When to look, when to capture, when to rest: the pace of following, as pure decisions."""

from __future__ import annotations

from dataclasses import dataclass

from replicator.core.cursor import Observation

# After an event the commit is published a moment later, without an event of its own: look again, at first
# soon, then ever more rarely, for as long as a slow fsync of the application may take.
RELOOK_FIRST_SECONDS = 0.0005
RELOOK_MAX_SECONDS = 0.1
RELOOK_FOR_SECONDS = 2.0
# Commits this close together are followed on a timer, with events switched off.
SUSTAINED_SECONDS = 0.25
# The timer. A look is cheap, waking up for it is not (0.2 ms of a core): what is looked for between captures
# is only who waits for our read mark, and when a commit came, to the precision of recorded times.
POLL_MIN_SECONDS = 0.0025
POLL_MAX_SECONDS = 0.05
# What a round takes is taken off the time until the next one, so that a commit waits no longer than the interval;
# but no more than this share, or a busy database would be captured without a pause.
TAKEN_OFF_MAX = 0.25
# A backlog this large is captured whatever the interval says.
BACKLOG_BYTES = 8 << 20
# A checkpoint that we made way for moves frames and waits for us a second time. It asks after 1, 3, 8, 18, 33, 53
# ms, so it is looked for closely, and goes on the first time it asks after we are out of its way.
POLL_ASKED_SECONDS = 0.005


@dataclass(slots=True)
class Pace:
    """Times of the last things that happened, monotonic seconds."""

    interval: float
    woken: float = float("-inf")
    grew: float = float("-inf")
    captured: float = float("-inf")
    took: float = 0.0
    relook: float = RELOOK_FIRST_SECONDS
    asked: bool = False
    """Whether, at the last look, another process was at a checkpoint, and may be waiting for our read mark. One
    that waits keeps writers out, so the log stands still then; a PASSIVE of a busy writer's own is no such thing."""

    def wake(self, now: float) -> None:
        """Something may have happened: look soon and often again."""
        self.woken = now
        self.relook = RELOOK_FIRST_SECONDS

    @property
    def poll(self) -> float:
        return min(POLL_MAX_SECONDS, max(POLL_MIN_SECONDS, self.interval / 3))

    @property
    def due_at(self) -> float:
        """When the next round begins, if nothing asks for an earlier one."""
        return self.captured + self.interval - min(self.took, self.interval * TAKEN_OFF_MAX)

    def sustained(self, now: float) -> bool:
        """Whether commits keep coming, so that events tell nothing new."""
        return now - self.grew < SUSTAINED_SECONDS

    def next_look(self, now: float, *, pending: bool) -> float | None:
        """Seconds until the next look; None to rest until woken. *pending*: frames wait for their interval."""
        poll = min(self.poll, POLL_ASKED_SECONDS) if self.asked else self.poll
        if pending:
            return min(poll, max(0.0, self.due_at - now))
        if self.asked or self.sustained(now):
            return poll
        if now - max(self.woken, self.grew) >= RELOOK_FOR_SECONDS:
            return None
        delay, self.relook = self.relook, min(self.relook * 2, RELOOK_MAX_SECONDS)
        return delay

    def due(self, now: float, *, fresh_bytes: int, mark_zero: bool, grew: bool) -> bool:
        """Whether the new frames are to be captured now.

        At once after quiet, then once an interval; and at once where our read mark may be in somebody's way:
        any mark in that of a checkpoint that wants more than PASSIVE, mark 0 already in that of a FULL one.
        """
        overdue = fresh_bytes >= BACKLOG_BYTES or now >= self.due_at
        return overdue or mark_zero or (self.asked and not grew)


# Coalescing begins when the log is above a mark, still grows, and much came at once. It ends when for this long
# fewer frames came than capture takes one by one without falling behind; a log that was just restarted is no
# sign of calm.
MUCH_FRAMES = 256
CALM_SECONDS = 1.0
CALM_FRAMES_PER_SECOND = 5_000


@dataclass(slots=True)
class Overload:
    """Whether restore points are thinned out to one a batch, so that the log stays bounded."""

    above_bytes: int
    active: bool = False
    _frames_before: int | None = None
    _since: float = float("-inf")
    _counted: int = 0

    def judge(self, now: float, seen: Observation, *, frame_bytes: int, fresh_frames: int) -> bool:
        """Called once a round, with the frames that are about to be captured.

        The first round catches up with what was there before us, which is no overload.
        """
        growing = self._frames_before is not None and seen.frames > self._frames_before
        self._frames_before = seen.frames
        self._counted += fresh_frames
        if growing and fresh_frames >= MUCH_FRAMES and seen.frames * frame_bytes >= self.above_bytes:
            self.active = True
            self._since, self._counted = now, 0
        elif now - self._since >= CALM_SECONDS:
            if self._counted < CALM_FRAMES_PER_SECOND * (now - self._since):
                self.active = False
            self._since, self._counted = now, 0
        return self.active
