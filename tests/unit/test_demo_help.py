"""What `sre-bot demo --help` says is what the command does."""

from click.testing import CliRunner

from bot.__main__ import main


def test_where_a_headless_demo_keeps_its_data() -> None:
    """A page's demo keeps them where SRE_DATA_DIR says; without a page they are gone at the end."""
    told = " ".join(CliRunner().invoke(main, ["demo", "--help"]).output.split())
    assert "SRE_DATA_DIR; with --headless a temporary folder, removed at the end" in told
