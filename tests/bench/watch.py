"""Runs a command and says what its quipu processes took, a line of three numbers separated by tabs:

    watch.py LOG COMMAND...    ->   peak MB of all together (PSS), peak MB of the largest (VmHWM),
                                    MB read from storage by all together

What the command prints goes to LOG; its exit code is this one's. Samples are taken ten times a second.
"""

import os
import pathlib
import subprocess
import sys
import time


def fields(path):
    """ "Name: number ..." lines of a file of /proc."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines
            if len(words) > 1 and words[1].isdigit()}


def processes(session):
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == session and (path / "comm").read_text() == "quipu\n":
                yield path
        except OSError:
            pass  # it has ended meanwhile


def main():
    pss, peak, read = 0, 0, {}
    with open(sys.argv[1], "w") as log:
        child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 start_new_session=True)
    while child.poll() is None:
        together = 0
        for path in processes(child.pid):
            try:
                together += fields(path / "smaps_rollup")["Pss"]
                peak = max(peak, fields(path / "status")["VmHWM"])
                read[path.name] = fields(path / "io")["read_bytes"]
            except (OSError, KeyError):
                pass
        pss = max(pss, together)
        time.sleep(0.1)
    print(f"{pss * 1.024e-3:.0f}\t{peak * 1.024e-3:.0f}\t{sum(read.values()) / 1e6:.0f}")
    return child.returncode


sys.exit(main())
