"""/docs in a real browser that reaches this service and nothing else: 401, 422 and 200 are seen."""

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.service import KEY, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Route

pytestmark = pytest.mark.browser

TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation",
    event => console.log(`not allowed: ${event.effectiveDirective} ${event.blockedURI}`))
"""


@pytest.fixture
def browser() -> "Iterator[Browser]":
    # Not at the top: `make test` collects this file, and goes without playwright.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "This test needs Chromium: `make setup`."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-quic",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        browser.close()


def test_authorize_then_try_it_out(
    browser: "Browser", service: Service, sqlite_database: SqliteDatabase
) -> None:
    from playwright.sync_api import expect  # noqa: PLC0415

    elsewhere: list[str] = []
    complaints: list[str] = []

    def only_the_service(route: "Route") -> None:
        if route.request.url.startswith((service.url, "data:")):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    page = browser.new_page()
    page.add_init_script(TELL_VIOLATIONS)
    page.route("**/*", only_the_service)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    page.goto(service.url + "/docs")
    expect(page.get_by_role("heading", name="SAM Callback Service")).to_be_visible()

    operation = page.locator("#operations-Callbacks-callback_callback_post")
    operation.click()
    operation.get_by_role("button", name="Try it out").click()
    answer = operation.locator(".live-responses-table .response")

    def try_it_out(content: str, status: str, says: str) -> None:
        operation.locator("textarea").fill(content)
        operation.get_by_role("button", name="Execute").click()
        expect(answer.locator(".response-col_status")).to_contain_text(status)
        expect(answer).to_contain_text(says)

    callback = body("d-1", "RUN_COMPLETED").decode()
    try_it_out(callback, "401", "A valid X-API-KEY header is required.")
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_role("textbox", name="Value:").fill(KEY)
    page.get_by_label("Apply credentials").click()
    page.get_by_role("button", name="Close").click()
    try_it_out('{"status": "RUN_COMPLETED"}', "422", "Field required")
    try_it_out(callback, "200", '"outcome": "updated"')
    if picture := os.environ.get("SAM_TEST_SCREENSHOT"):  # for the tutorial
        page.set_viewport_size({"width": 900, "height": 1020})
        operation.locator(".opblock-section-request-body").evaluate("it => it.scrollIntoView()")
        page.screenshot(path=picture)
    assert sqlite_database.statuses() == {"d-1": "RUN_COMPLETED"}
    assert elsewhere == []
    refused = "Failed to load resource: the server responded with a status of "
    assert [complaint.removeprefix(refused)[:3] for complaint in complaints] == ["401", "422"]


def test_nothing_that_is_not_its_own_runs_on_the_page(browser: "Browser", service: Service) -> None:
    """The policy works: injected content would neither run nor call anywhere."""
    page = browser.new_page()
    page.add_init_script(TELL_VIOLATIONS)
    violations: list[str] = []
    page.on(
        "console",
        lambda message: (
            violations.append(message.text) if message.text.startswith("not allowed: ") else None
        ),
    )
    page.goto(service.url + "/docs")
    page.wait_for_selector("#operations-Callbacks-callback_callback_post")
    assert violations == []

    page.evaluate(
        """() => {
            const inline = document.createElement("script");
            inline.textContent = "window.itRan = true";
            const style = document.createElement("style");
            style.textContent = "body { display: none }";
            const frame = document.createElement("iframe");
            frame.src = "/docs";
            const picture = document.createElement("img");
            picture.src = "http://127.0.0.1:9/";
            const handler = document.createElement("b");
            document.body.append(inline, style, frame, picture, handler);
            handler.setAttribute("onclick", "window.itRan = true");
            handler.click();
            fetch("http://127.0.0.1:9/").catch(() => {});
        }"""
    )
    page.wait_for_function("() => true")
    seen = {violation.removeprefix("not allowed: ").split()[0] for violation in violations}
    assert seen == {
        "script-src-elem",
        "script-src-attr",
        "style-src-elem",
        "frame-src",
        "img-src",
        "connect-src",
    }
    assert page.evaluate("window.itRan") is None
