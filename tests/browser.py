"""Pages in a headless Chromium."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--virtual-time-budget=10000"),
]
FRAME = """<!doctype html><body style="margin:0"><script>
onmessage = (event) => { document.body.textContent = "SEEN" + event.data + "END"; };
</script><iframe src="probed.html" style="border:0;width:%dpx;height:2000px"></iframe></body>"""


def look(page: Path, probe: str, width: int = 1200, *options: str) -> dict[str, Any]:
    """Open a page at this width with a script added; return what that posts to its parent.

    Any message of the browser's console is a failure.
    """
    assert CHROMIUM
    folder = page.parent
    html = page.read_text(encoding="utf-8")
    (folder / "probed.html").write_text(html.replace("</body>", probe + "</body>"), "utf-8")
    (folder / "frame.html").write_text(FRAME % width)
    frame = (folder / "frame.html").as_uri()
    profile = f"--user-data-dir={folder / 'profile'}"
    window = f"--window-size={width},2000"
    command = [CHROMIUM, *OPTIONS, profile, window, *options, "--dump-dom", frame]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r"SEEN(.*)END</body>", done.stdout, re.DOTALL)
    assert found, done.stdout[:2000]
    seen: dict[str, Any] = json.loads(unescape(found[1]))
    assert not seen["problem"]
    assert seen["overflow"] <= 0
    return seen
