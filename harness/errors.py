"""One exception tree. Each message says what was found, what was expected, and what to do next.

The branch decides the exit code of the command: `UsageError` is something the caller named (2), `Broken` is the machine,
the build, the store or the measurement (4).
"""

from __future__ import annotations

from typing import ClassVar


class EnginegateError(Exception):
    """Root of everything this project raises on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 4


class UsageError(EnginegateError):
    """What the caller named is unknown, unreadable, malformed or impossible."""

    code = "usage"
    exit_code = 2


class UnknownName(UsageError):
    """An encoder, recipe, backend or target that does not exist."""

    code = "unknown_name"


class UnusableCheckpoint(UsageError):
    """Weights that are missing, truncated, of another architecture, or more than plain tensors."""

    code = "unusable_checkpoint"


class UnusableGraph(UsageError):
    """An ONNX file that cannot be read, or that a builder's parser refuses."""

    code = "unusable_graph"


class UnusableLayerTable(UsageError):
    """A build log or inspector dump, named by the caller, that holds no table that can be read."""

    code = "unusable_layer_table"


class UnusableInputs(UsageError):
    """Inputs that are empty, not finite, of the wrong shape, or not the ones a digest pins."""

    code = "unusable_inputs"


class BadGateFile(UsageError):
    """A gate.toml with an unknown key, a bound that is no number, or a bound without a reason."""

    code = "bad_gate_file"


class BadSamples(UsageError):
    """A file of latency samples that is no JSON, or of another schema."""

    code = "bad_samples"


class UnusableEngine(UsageError):
    """An engine file without its record, with another digest than its record says, of another version or GPU, or of nothing comparable."""

    code = "unusable_engine"


class UnusableProfile(UsageError):
    """A file named as a profile of an engine that holds none."""

    code = "unusable_profile"


class UnusablePrepared(UsageError):
    """A folder of prepared encoders without its manifest, with altered files, or of another report than the one it is to go on with."""

    code = "unusable_prepared"


class UnknownEnvironment(UsageError):
    """A Python, named by the caller to run an engine, that is not there or is no Python."""

    code = "unknown_environment"


class HostCodeRefused(UsageError):
    """A plan that carries code for the host, where whoever runs it has not allowed such code."""

    code = "host_code_refused"


class UnusableTimingCache(UsageError):
    """A file of kernel times that cannot be read or written, or that another release or GPU made."""

    code = "unusable_timing_cache"


class UnsupportedOption(UsageError):
    """Something asked of a builder that this one cannot do."""

    code = "unsupported_option"


class UnsupportedTarget(UsageError):
    """An engine that this target cannot have, such as FP8 before Ada."""

    code = "unsupported_target"


class UnsupportedRecipe(UsageError):
    """A recipe that this encoder cannot have, since it has nothing of what the recipe quantizes."""

    code = "unsupported_recipe"


class OutsideProfile(UsageError):
    """A batch the engine was not built for. It is raised, never clamped."""

    code = "outside_profile"


class UnusablePending(UsageError):
    """A pending record that is no such document, that somebody rejected, or that was made on another machine than this one."""

    code = "unusable_pending"


class UnknownBaseline(UsageError):
    """A latency baseline, named by the caller, that does not exist."""

    code = "unknown_baseline"


class WritesRefused(UsageError):
    """Writing baselines in CI, where nobody looks at what is approved."""

    code = "writes_refused"


class Broken(EnginegateError):
    """Machine, build, store or measurement broke: no verdict can rest on it."""

    code = "broken"


class MissingLibrary(Broken):
    """An optional library that is not installed."""

    code = "missing_library"


class MissingDevice(Broken):
    """A device or driver that this action needs and this machine lacks."""

    code = "missing_device"


class MixedVersions(Broken):
    """Libraries and bindings of a vendor that are not of one version."""

    code = "mixed_versions"


class OutOfDeviceMemory(Broken):
    """A build, an engine or a batch that needs more memory than the device has free."""

    code = "out_of_device_memory"


class BuildFailed(Broken):
    """A builder gave no engine. The message carries the last lines of the vendor's log."""

    code = "build_failed"


class NeedsFixedBatch(BuildFailed):
    """A builder that has kernels for this graph where its batch cannot change, and was asked for one that can."""

    code = "needs_fixed_batch"


class StoreFailed(Broken):
    """The cache, a baseline or the run directory could not be read or written."""

    code = "store_failed"


class UnreadableBaseline(StoreFailed):
    """A baseline that is no JSON, has merge-conflict markers, or has a newer schema."""

    code = "unreadable_baseline"


class UnreachableBlobs(StoreFailed):
    """A blob store that is not there, or that this user cannot read or write."""

    code = "unreachable_blobs"


class MissingBlob(StoreFailed):
    """An engine that a record names and the blob store does not have."""

    code = "missing_blob"


class AlteredBlob(StoreFailed):
    """A blob whose content has another digest than its name."""

    code = "altered_blob"


class UnreadableLayerTable(Broken):
    """A build log or inspector dump without the table that the engine checks read."""

    code = "unreadable_layer_table"


class InvalidMeasurement(Broken):
    """Observations that cannot be compared, such as embeddings of different inputs."""

    code = "invalid_measurement"


class ContextLost(InvalidMeasurement):
    """A CUDA error that broke the context of its process: nothing can use the GPU there any more, and another process can."""

    code = "context_lost"


class WorkerFailed(Broken):
    """A worker process did not do what it was asked. The message carries the last lines that it wrote to stderr."""

    code = "worker_failed"


class WorkerDied(WorkerFailed):
    """A worker ended, by a signal, an abort or on its own, before it had answered."""

    code = "worker_died"


class WorkerHung(WorkerFailed):
    """A worker did not answer in time, and was killed."""

    code = "worker_hung"


class WorkerBabbled(WorkerFailed):
    """A worker answered something that is no answer, and was killed."""

    code = "worker_babbled"
