"""Generates `raft_host/v1` from the contract.

What it makes is not committed: Python's generated code is tied to the version of the protobuf
package that it runs with, and a copy would be one more thing to keep in step with the contract.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTO = HERE.parents[2] / "proto"


def main() -> int:
    """Writes messages, their types for checkers, and stubs."""
    files = sorted(str(path) for path in (PROTO / "raft_host" / "v1").glob("*.proto"))
    if not files:
        print(f"no contract in {PROTO}", file=sys.stderr)
        return 1
    outputs = [f"--{kind}={HERE}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    return int(protoc.main(["protoc", f"-I{PROTO}", *outputs, *files]))


if __name__ == "__main__":
    sys.exit(main())
