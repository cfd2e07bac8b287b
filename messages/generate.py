"""Generate `messages/generated` from `messages/proto`: betterproto classes, and the descriptors of their bytes.

Run by `make proto`; with `--check` it writes nothing and fails if what is committed differs.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
GENERATED = HERE / "generated"
FILES = ("__init__.py", "orders/__init__.py", "orders/v1.py", "descriptors.binpb")


def generate(into: Path) -> None:
    """Run protoc with betterproto's plugin, writing `FILES` below `into`."""
    protos = sorted((HERE / "proto").glob("*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={HERE / 'proto'}",
            f"--plugin={Path(sys.executable).parent / 'protoc-gen-python_betterproto'}",
            f"--python_betterproto_out={into}",
            f"--descriptor_set_out={into / 'descriptors.binpb'}",
            *[str(proto) for proto in protos],
        ],
        check=True,
        capture_output=True,
    )


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        with tempfile.TemporaryDirectory() as scratch:
            generate(Path(scratch))
            stale = [
                name
                for name in FILES
                if not (GENERATED / name).exists()
                or (GENERATED / name).read_bytes() != (Path(scratch) / name).read_bytes()
            ]
        if stale:
            print(
                f"messages/generated is out of date ({', '.join(stale)}): run `make proto` and commit the result"
            )
        return 1 if stale else 0
    GENERATED.mkdir(exist_ok=True)
    generate(GENERATED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
