"""A platform without the modules of POSIX, as Windows is: runs with one and two workers, and what they cannot say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]

# Other packages have their own code for Windows, which is not run here: those that need these at once come first.
SHIM = """
import asyncio, multiprocessing.util, shutil, signal, subprocess, sys, tempfile, os
import multiprocessing.resource_tracker
import psutil
multiprocessing.resource_tracker._HAVE_SIGMASK = False
psutil.Process.kill = lambda process: process.send_signal(9)

class Hidden:
    names = {"resource", "fcntl", "termios", "tty", "pty", "pwd", "grp", "syslog", "posixshmem"}
    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
for name in Hidden.names:
    sys.modules.pop(name, None)
for name in ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGALRM", "pthread_sigmask", "pthread_kill", "setitimer"):
    delattr(signal, name)
for name in ("fork", "sched_getaffinity", "getuid", "geteuid", "killpg", "getpgid", "setsid"):
    delattr(os, name)
"""
RUN = "import harness\nfor workers in (1, 2):\n    harness.run('config.yaml', out=f'run-{workers}', workers=workers)\n"
GUARDED = "import harness\nif __name__ == '__main__':\n    " + RUN.replace("\n", "\n    ")


def run(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(SHIM, encoding="utf-8")
    one_layer = {"kind": "one-layer", "vocab_size": 6, "dimension": 8, "observations": 500, "prompt_length": 8}
    one_layer |= {"repetitions": 2, "held_out_prompts": 100, "rollout_prompts": 2, "rollout_steps": 32}
    config = {"name": "hidden", "experiments": [one_layer | {"rollout_seeds": 2}]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "script.py").write_text(script, encoding="utf-8")
    places = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, *(arguments or ["script.py"])]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, check=False, timeout=300
    )


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("units/*/unit.json")]


@pytest.mark.parametrize("script", [GUARDED, RUN], ids=["with a guard", "without a guard"])
def test_a_script_runs_with_one_and_two_workers(tmp_path: Path, script: str) -> None:
    """Workers never import the script that started them, so that it needs no `if __name__ == "__main__"`."""
    done = run(tmp_path, script)
    assert done.returncode == 0, done.stderr
    for workers in (1, 2):
        manifest = json.loads((tmp_path / f"run-{workers}" / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["state"] == "complete"
        assert manifest["timings"]["peak_memory_bytes"] is None  # unknown, not 0
        found = records(tmp_path / f"run-{workers}")
        assert len(found) == 2
        assert {record["peak_memory_bytes"] for record in found} == {None}


def test_the_command_runs_and_shows(tmp_path: Path) -> None:
    done = run(tmp_path, "", "-m", "harness.cli", "run", "config.yaml", "--out", "run", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for verb in (["show", "run"], ["ls", "."], ["verify", "run"], ["--help"]):
        shown = run(tmp_path, "", "-m", "harness.cli", *verb)
        assert shown.returncode == 0, (verb, shown.stderr)
