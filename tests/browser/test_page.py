"""A person at the page: a fault, a card, Approve, and the card that says it recovered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.databases import open_directory
from tests.whole import WholeDemo, whole_demo

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CARD_MS = 180_000
"""From the fault to the card on a busy machine; two minutes on a quiet one is the promise."""
SOON_MS = 30_000

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def demo() -> Iterator[WholeDemo]:
    with open_directory() as directory, whole_demo(directory / "demo") as running:
        yield running


@pytest.fixture
def page(demo: WholeDemo) -> Iterator[Page]:
    if not Path(CHROMIUM).exists():
        pytest.fail("no chromium: `make test-deps` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 950})
        page.goto(f"{demo.page_url}/?as=U0ALICE")
        expect(page.get_by_test_id("bot-status")).to_have_attribute("data-connected", "true", timeout=SOON_MS)
        yield page
        browser.close()


def test_a_person_approves_and_sees_it_recover(page: Page, demo: WholeDemo) -> None:
    page.locator("[data-fault=memory-leak]").click()
    channel = page.get_by_test_id("message-list")
    approve = channel.locator("[data-action-id=approve]")
    expect(approve).to_be_visible(timeout=CARD_MS)
    card = channel.get_by_test_id("message").filter(has=page.locator("[data-action-id=approve]"))
    ts = card.get_attribute("data-ts")
    card = channel.locator(f"[data-ts='{ts}']")
    expect(card).to_contain_text("checkout")
    expect(card).to_contain_text("Restart checkout-1")
    expect(card.locator("img[alt*='memory use of checkout-1']")).to_be_visible(timeout=SOON_MS)

    _as(page, "U0GIL")
    card.locator("[data-action-id=approve]").click()
    page.get_by_test_id("confirm-ok").click()
    expect(channel.get_by_text("You may not decide")).to_be_visible(timeout=SOON_MS)

    _as(page, "U0ALICE")
    card.locator("[data-action-id=approve]").click()
    expect(page.get_by_test_id("confirm-dialog")).to_contain_text("checkout-1")
    page.get_by_test_id("confirm-ok").click()
    expect(card).to_contain_text("recovered in", timeout=CARD_MS)
    expect(card).to_contain_text("approved by @Alice Moreau")
    expect(card.locator("[data-action-id=approve]")).to_have_count(0)

    card.get_by_test_id("open-thread").click()
    thread = page.get_by_test_id("thread-list")
    expect(thread).to_contain_text("How this was reasoned", timeout=SOON_MS)
    expect(thread).to_contain_text("restart checkout-1", timeout=SOON_MS)
    expect(thread).to_contain_text("Post-mortem draft", timeout=SOON_MS)
    composer = page.get_by_test_id("thread-composer")
    composer.fill("what is the evidence?")
    composer.press("Enter")
    expect(thread.get_by_test_id("message").filter(has_text="[E1]").last).to_be_visible(timeout=SOON_MS)


def test_commands_answer(page: Page) -> None:
    composer = page.get_by_test_id("composer")
    for command, answer in (("/sre status", "Phase"), ("/sre hlep", "help"), ("/sre phase", "incidents diagnosed")):
        composer.fill(command)
        composer.press("Enter")
        expect(page.get_by_test_id("message-list").get_by_text(answer).last).to_be_visible(timeout=SOON_MS)


def _as(page: Page, user: str) -> None:
    page.locator(f"[data-testid=person][data-user={user}]").click()
    expect(page.locator(f"[data-testid=person][data-user={user}]")).to_have_attribute("aria-pressed", "true")
