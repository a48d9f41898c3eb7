"""The trial of a bundle before it is installed. numpy and the runtime are imported only when it begins."""

from __future__ import annotations

from collections.abc import Callable

from seedcnn.device.choice import remember
from seedcnn.device.config import Config
from seedcnn.device.records import SlotRecord
from seedcnn.device.slots import Slots
from seedcnn.errors import UpdateError
from seedcnn.runtime.names import AUTO

__all__ = ["try_bundle"]


def try_bundle(
    slots: Slots, config: Config, data: bytes, release: int, step: Callable[[str], None], artefact: str = ""
) -> SlotRecord:
    """Open, expand and self-test a bundle in the runtime that will run it. The caller holds the lock.

    Args:
        release: the announced release; 0 accepts any.
        step: called with each state before it starts.
        artefact: SHA-256 of the published file; "" if the bundle is that file.

    Raises:
        BundleError, SelfTestError, UpdateError: if the bundle does not open or expand, fails its self-test, or is of
            another family or release.
        MissingExtraError, ModuleNotFoundError: if numpy or the runtime is not installed.
    """
    step("EXPAND")
    from seedcnn.bundle import read_bundle
    from seedcnn.device.expand import expand
    from seedcnn.device.health import self_test
    from seedcnn.device.measure import choose
    from seedcnn.device.runtime import Model

    bundle = read_bundle(data)
    manifest, family = bundle.manifest, config.family
    if manifest.family != family:
        raise UpdateError(f"the bundle was refused: its family is {manifest.family!r}, not {family!r}")
    if release and manifest.release != release:
        raise UpdateError(f"the bundle was refused: it is release {manifest.release}, but was announced as {release}")
    if config.runtime == AUTO:
        tensors = expand(bundle)
        step("SELFTEST")
        choice, _ = choose(bundle, tensors)
        remember(slots, choice, locked=True)
    else:
        model = Model.of_bundle(bundle, "candidate", runtime=config.runtime)
        step("SELFTEST")
        self_test(model.session, bundle)
    content, digest = manifest.content_sha256(), bundle.sha256
    return SlotRecord(family, manifest.release, manifest.min_release, digest, bundle.size, content, artefact or digest)
