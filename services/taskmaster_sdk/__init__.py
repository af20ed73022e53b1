"""What a TaskMaster plugin imports, and nothing else of TaskMaster. Needs only the standard library and pluggy."""

from taskmaster_sdk.artifacts import ArtifactLost
from taskmaster_sdk.context import JobContext, PluginContext
from taskmaster_sdk.effects import Effect
from taskmaster_sdk.hooks import API_VERSION, hookimpl
from taskmaster_sdk.jobs import Backoff, Job, job
from taskmaster_sdk.marks import Pii, Secret
from taskmaster_sdk.outcomes import Cancelled, DependencyDown, Discard, EffectUnknown, Fatal, LeaseLost, RateLimited, Retry
from taskmaster_sdk.schedules import Schedule

__all__ = [
    "API_VERSION",
    "ArtifactLost",
    "Backoff",
    "Cancelled",
    "DependencyDown",
    "Discard",
    "Effect",
    "EffectUnknown",
    "Fatal",
    "Job",
    "JobContext",
    "LeaseLost",
    "Pii",
    "PluginContext",
    "RateLimited",
    "Retry",
    "Schedule",
    "Secret",
    "hookimpl",
    "job",
]
