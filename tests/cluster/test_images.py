"""The agents' images: small, the same from build to build, nothing in them that is not needed."""

import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.support import Cluster, Release
from tests.cluster.support.cluster import run
from tests.cluster.support.release import TAG

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("connmgr", "smtp", "pop-imap", "nmap", "cli")
COMPONENTS = ("connmgr", "smtp", "deliver", "pop-imap", "nmap", "cli")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """An image as a registry would hold it: layers compressed by gzip."""

    config: dict[str, Any]
    compressed: int
    """Octets of all layers."""
    paths: tuple[str, ...]


def build(cluster: Cluster, name: str, tag: str) -> None:
    """`make images` for one image, nothing taken from an earlier build."""
    bases = (
        "--build-arg BASE_IMAGE=netmail-base:py311 --build-arg BUILD_IMAGE=netmail-base:py311-build"
    )
    run(
        ["make", "-C", str(ROOT), "images", f"IMAGES={name}", f"IMAGE_TAG={tag}",
         f"IMAGE_BUILD={cluster.tool} bud --timestamp 0 --no-cache",
         "IMAGE_PREFIX=localhost/netmail", f"IMAGE_ARGS={bases}"],
        timeout=600,
    )  # fmt: skip


def digest(name: str, tag: str) -> str:
    """The manifest's digest."""
    image = f"localhost/netmail/{name}:{tag}"
    template = "{{.FromImageDigest}}"
    return run(["buildah", "inspect", "--type", "image", "--format", template, image]).strip()


def read_image(name: str, folder: Path) -> Image:
    """Writes an image out and reads it. Raises: CommandFailed."""
    run(["buildah", "push", "-q", f"localhost/netmail/{name}:{TAG}", f"oci:{folder}:x"])
    index = json.loads((folder / "index.json").read_text())
    manifest = json.loads(_blob(folder, index["manifests"][0]).read_text())
    layers = manifest["layers"]
    return Image(
        config=json.loads(_blob(folder, manifest["config"]).read_text())["config"],
        compressed=sum(layer["size"] for layer in layers),
        paths=tuple(path for layer in layers for path in _paths(_blob(folder, layer))),
    )


def _blob(folder: Path, described: dict[str, Any]) -> Path:
    return folder / "blobs" / str(described["digest"]).replace(":", "/")


def _paths(layer: Path) -> Iterator[str]:
    with tarfile.open(layer) as archive:
        for member in archive:
            yield "/" + member.name.removeprefix("./")


@pytest.fixture(scope="module")
def images(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Every image that the cluster's tests use."""
    if not cluster.is_own:
        pytest.skip("looks at the images that the machine's own cluster is loaded with")
    folder = tmp_path_factory.mktemp("images")
    return {name: read_image(name, folder / name) for name in IMAGES}


def test_no_image_is_larger_than_120_megabytes_compressed(images: dict[str, Image]) -> None:
    sizes = {name: round(image.compressed / _MIB, 1) for name, image in images.items()}
    print(f"\ncompressed, MiB: {sizes}")
    assert max(sizes.values()) < 120 * 1e6 / _MIB


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_says_who_it_is_and_starts_python_itself_as_no_root(
    images: dict[str, Image], name: str
) -> None:
    config = images[name].config
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"][:2] == ["python3", "-m"]
    assert config["Labels"]["org.opencontainers.image.title"] == f"netmail-{name}"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_no_compiler_no_installer_and_no_bytecode(
    images: dict[str, Image], name: str
) -> None:
    def unwanted(path: str) -> bool:
        program = path.rpartition("/")[2]
        tool = "/bin/" in path and program in {"gcc", "cc", "g++", "ld", "make", "pip", "pip3"}
        ours = path.startswith("/opt/site") and path.endswith((".pyc", "direct_url.json"))
        return tool or ours

    assert [path for path in images[name].paths if unwanted(path)] == []
    assert any(path.startswith("/opt/site/netmail_") for path in images[name].paths)


@pytest.mark.parametrize(
    "name", [one if one == "smtp" else pytest.param(one, marks=pytest.mark.long) for one in IMAGES]
)
def test_two_builds_from_nothing_give_the_same_digest(cluster: Cluster, name: str) -> None:
    if not cluster.is_own:
        pytest.skip("needs the machine's own cluster, for its build command")
    try:
        for tag in ("once", "again"):
            build(cluster, name, tag)
        assert digest(name, "once") == digest(name, "again")
    finally:
        for tag in ("once", "again"):
            subprocess.run(
                ["buildah", "rmi", f"localhost/netmail/{name}:{tag}"],
                capture_output=True, check=False, timeout=60,
            )  # fmt: skip


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_pod_runs_as_no_root_on_a_file_system_it_cannot_write_to(
    installed: Release, component: str
) -> None:
    code = (
        "import os\n"
        "print(os.getuid(), open('/proc/1/status').read().split('CapEff:')[1].split()[0])\n"
        "try:\n"
        "    open('/written', 'w')\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    pod = installed.ready_pods(component)[0].name
    said = installed.kubectl("exec", pod, "--", "python3", "-c", code).splitlines()
    assert said == ["10001 0000000000000000", "Read-only file system"]


def test_no_pod_runs_by_a_shell(installed: Release) -> None:
    code = (
        "import glob\n"
        "for name in glob.glob('/proc/[0-9]*/comm'):\n"
        "    print(open(name).read().strip())\n"
    )
    for component in COMPONENTS:
        pod = installed.ready_pods(component)[0].name
        said = installed.kubectl("exec", pod, "--", "python3", "-c", code).split()
        assert set(said) == {"python3"}, component
