"""Dramatiq middleware of ours. None of them does I/O: what they decide is carried out by the finish script in one atomic step.

Order of a worker's list: Measure, AttemptContext, Idempotency, DeadLetter, Outcome. Hooks after an attempt run in reverse: the outcome is
decided first, then routed, then the books are closed, and last it is counted.
"""

from taskmaster.broker.middleware.attempt import AttemptContext
from taskmaster.broker.middleware.dead_letter import DeadLetter
from taskmaster.broker.middleware.failpoint import AttemptFinished, AttemptStarted
from taskmaster.broker.middleware.idempotency import Idempotency
from taskmaster.broker.middleware.measure import Measure
from taskmaster.broker.middleware.outcome import Outcome

__all__ = ["AttemptContext", "AttemptFinished", "AttemptStarted", "DeadLetter", "Idempotency", "Measure", "Outcome"]
