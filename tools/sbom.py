"""What a wheel is made of (SBOM), as CycloneDX in the wheel itself: `python tools/sbom.py put|check|print WHEEL...`.

It lies in `.dist-info/sboms/`, where PEP 770 wants it: the requirements of METADATA, what is compiled in (headers of
PyTorch and pybind11, NVIDIA's runtime in the wheels with CUDA kernels), and the compilers, as the libraries name them.
`check` reads it back against METADATA and CycloneDX's schema. The same wheel gets the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import uuid
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

NAME = "vfrnn-kernels"
CUDA_LIBRARY = "vfrnn_kernels/libvfrnn_cuda.so"
#: Compiled in, by the name of the distribution that brings it, with its licence.
COMPILED_IN = {"torch": "BSD-3-Clause", "pybind11": "BSD-3-Clause"}
CUDA_RUNTIME = "NVIDIA CUDA runtime (libcudart_static)"
EPOCH = "315532800"


def compilers(library: bytes) -> list[str]:
    """Those that a library names: the text of its section .comment."""
    return sorted({name.decode() for name in re.findall(rb"(?:GCC: \(|clang version )[\x20-\x7e]{1,100}", library)})


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def sbom(metadata: str, libraries: dict[str, bytes]) -> str:
    """The JSON for a wheel with that METADATA and those libraries, by their names in it."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from packageurl import PackageURL

    fields, licence = Parser().parsestr(metadata), LicenseFactory().make_from_string
    version = str(fields["Version"])

    def component(name: str, version: str | None, what: str, licences: list[str], **more: Any) -> Component:
        purl = PackageURL("pypi", None, name.lower(), version) if name != CUDA_RUNTIME else None
        return Component(
            name=name, version=version, type=ComponentType.LIBRARY, description=what, purl=purl,
            bom_ref=f"{name} {what}", licenses=[licence(text) for text in licences], **more,
        )  # fmt: skip

    named = sorted({name for content in libraries.values() for name in compilers(content)})
    root = component(
        NAME, version, "this wheel", ["MIT"], properties=[Property(name="compiler", value=name) for name in named]
    )
    parts = []
    for requirement in sorted(fields.get_all("Requires-Dist") or []):
        if "extra ==" not in requirement:
            name = re.match(r"[\w.-]+", requirement)[0]  # type: ignore[index]
            asked = [Property(name="requirement", value=requirement)]
            parts.append(component(name, None, "required", [], scope=ComponentScope.REQUIRED, properties=asked))
    for name, text in COMPILED_IN.items():
        parts.append(component(name, _installed(name), "headers, compiled in", [text]))
    if CUDA_LIBRARY in libraries:
        parts.append(component(CUDA_RUNTIME, None, "linked in", ["LicenseRef-NVIDIA-CUDA-EULA"]))
    bom = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{NAME} {version} {sorted(libraries)}"))
    bom.metadata.component = root
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    bom.register_dependency(root, parts)
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2) + "\n"


def _read(wheel: Path) -> tuple[str, dict[str, bytes], str]:
    """METADATA, the libraries, and the folder .dist-info."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        info = record.removesuffix("/RECORD")
        libraries = {name: archive.read(name) for name in names if name.endswith(".so")}
        return archive.read(f"{info}/METADATA").decode(), libraries, info


def _text(wheel: Path) -> str | None:
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if name.endswith(f".dist-info/sboms/{NAME}.cdx.json")]
        return archive.read(found[0]).decode() if found else None


def put_into(wheel: Path) -> None:
    """Write it into the wheel and its RECORD, in place of what is there."""
    metadata, libraries, info = _read(wheel)
    path, content = f"{info}/sboms/{NAME}.cdx.json", sbom(metadata, libraries).encode()
    whole = wheel.with_suffix(".part")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            if entry.filename == path:
                continue
            data = old.read(entry)
            # the rights that a file has on the machine that packs it are not the wheel's
            rights = 0o40755 if entry.is_dir() else 0o100755 if entry.external_attr >> 16 & 0o100 else 0o100644
            entry.external_attr = rights << 16
            if entry.filename == f"{info}/RECORD":
                hashed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
                lines = [line for line in data.decode().splitlines() if not line.startswith(f"{path},")]
                lines.insert(-1, f"{path},sha256={hashed},{len(content)}")
                added = zipfile.ZipInfo(path, entry.date_time)
                added.external_attr, added.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
                new.writestr(added, content)
                data = ("\n".join(lines) + "\n").encode()
            new.writestr(entry, data)
    whole.replace(wheel)


def faults(wheel: Path) -> list[str]:
    """What is wrong with the SBOM in the wheel."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    metadata, libraries, _ = _read(wheel)
    path, text = f"sboms/{NAME}.cdx.json", _text(wheel)
    if text is None:
        return [f"{path} is missing"]
    invalid = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if invalid is not None:
        return [f"{path} is not CycloneDX 1.6: {invalid}"]
    found, fields = json.loads(text), Parser().parsestr(metadata)
    wrong = []
    if found["metadata"]["component"]["version"] != fields["Version"]:
        wrong.append(f"{path} is of version {found['metadata']['component']['version']}, not {fields['Version']}")
    asked = {
        p["value"] for part in found["components"] for p in part.get("properties", []) if p["name"] == "requirement"
    }
    required = {text for text in fields.get_all("Requires-Dist") or [] if "extra ==" not in text}
    if asked != required:
        wrong.append(f"{path} has the requirements {sorted(asked)}, METADATA {sorted(required)}")
    names = {part["name"] for part in found["components"]}
    compiled = {*COMPILED_IN} | ({CUDA_RUNTIME} if CUDA_LIBRARY in libraries else set())
    wrong += [f"{path} does not name {name}, which is compiled in" for name in sorted(compiled - names)]
    return wrong


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["put", "check", "print"])
    parser.add_argument("wheels", nargs="+", type=Path)
    given = parser.parse_args()
    wrong = []
    for wheel in given.wheels:
        if given.action == "put":
            put_into(wheel)
        if given.action == "print":
            print(_text(wheel), end="")
        wrong += [f"{wheel.name}: {what}" for what in faults(wheel)]
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
