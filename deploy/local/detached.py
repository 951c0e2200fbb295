"""``up`` in the background: the same command in a session of its own, watched until it is ready."""

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import TextIO

from deploy.local.errors import DeployError
from deploy.local.home import Home
from deploy.local.state import Running


def start_detached(home: Home, port: int, progress: TextIO = sys.stderr) -> Running:
    """Starts ``up`` in the background, shows its progress, and returns when it is ready.

    Raises DeployError when it ends instead. An interruption (KeyboardInterrupt) stops it.
    """
    home.prepare()
    log = home.logs / "up.log"
    command = [
        sys.executable,
        "-m",
        "deploy.local.cli",
        "up",
        "--data",
        str(home.directory),
        "--port",
        str(port),
        "--json",
    ]
    with log.open("ab") as output:
        seen = output.tell()
        child = subprocess.Popen(
            command,
            cwd=home.run,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    assert child.stdout is not None
    try:
        with child.stdout as result:
            while not select.select([result], [], [], 0.1)[0]:
                seen = _relay(log, seen, progress)
            line = result.readline()
            _relay(log, seen, progress)
        if line:
            return Running(**json.loads(line))
        child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    raise DeployError(f"Millrace did not start, see {log}")


def _relay(log: Path, seen: int, progress: TextIO) -> int:
    with log.open("rb") as file:
        file.seek(seen)
        progress.write(file.read().decode(errors="replace"))
        progress.flush()
        return file.tell()
