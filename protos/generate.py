"""Builds `gen/` from `protos/`: Python modules, typing stubs, and the descriptor set that Envoy and buf read.

`gen/` is output and is never committed. protovalidate ships its contract as a descriptor inside a Python module and
not as a .proto file, so that descriptor is what protoc reads for `buf/validate/validate.proto`.
"""

import shutil
import sys
from pathlib import Path

import grpc_tools
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
OUTPUT = ROOT / "gen"
VALIDATE = "buf/validate/validate.proto"
ERROR_DETAILS = "google/rpc/error_details.proto"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
GOOGLEAPIS = Path(annotations_pb2.__file__).parents[2]


def main() -> int:
    """Generates into a fresh folder and swaps it in, so that a failed run leaves the old output standing."""
    fresh = OUTPUT.with_name("gen.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    known = fresh / "validate.binpb"
    known.write_bytes(_validate_descriptor())
    # A source folder wins over the descriptor set for the files it has; the set supplies validate.proto alone.
    paths = [f"-I{PROTOS}", f"-I{GOOGLEAPIS}", f"-I{WELL_KNOWN}", f"--descriptor_set_in={known}"]
    python = [f"--python_out={fresh}", f"--grpc_python_out={fresh}", f"--mypy_out={fresh}", f"--mypy_grpc_out={fresh}"]
    image = ["--include_imports", "--include_source_info", f"--descriptor_set_out={fresh / 'descriptors.binpb'}"]
    commands = [
        [*paths, *python, *files],
        [f"--descriptor_set_in={known}", f"--python_out={fresh}", f"--mypy_out={fresh}", VALIDATE],
        [*paths, *image, *files, ERROR_DETAILS],
    ]
    for command in commands:
        if code := protoc.main(["protoc", *command]):
            return int(code)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    fresh.rename(OUTPUT)
    return 0


def _validate_descriptor() -> bytes:
    descriptors = FileDescriptorSet()
    descriptors.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    for name in ("descriptor", "duration", "field_mask", "timestamp"):
        module = __import__(f"google.protobuf.{name}_pb2", fromlist=["DESCRIPTOR"])
        module.DESCRIPTOR.CopyToProto(descriptors.file.add())
    return descriptors.SerializeToString()


if __name__ == "__main__":
    sys.exit(main())
