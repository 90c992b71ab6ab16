"""The browser that the tests use: scripts/dashboard.sh has found one and noted it down in .dashboard/browser.

    python3 browser.py [PROGRAM [LIBRARIES]]    # whether this one, or the one noted down, starts
"""

import os
import pathlib
import sys

NOTED = pathlib.Path(__file__).resolve().parents[2] / ".dashboard" / "browser"


def launch(playwright, program=None, libraries=None):
    if program is None:
        program, libraries = (NOTED.read_text().split("\n") + [""])[:2]
    environment = dict(os.environ)
    environment.pop("LD_LIBRARY_PATH", None)
    if libraries:
        environment["LD_LIBRARY_PATH"] = libraries
    # Tests often run as root, where Chromium's own sandbox does not start. What is opened here is ours.
    return playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], env=environment)


if __name__ == "__main__":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch(playwright, *sys.argv[1:])
        page = browser.new_page()
        page.set_content("<p>here</p>")
        assert page.inner_text("p") == "here"
        browser.close()
