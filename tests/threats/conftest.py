"""The fixtures of the integration tests: a threat is met by the real parts."""

from tests.integration.conftest import _no_pauses, locks, one_step, place, scaling, sql, store
from tests.integration.test_intake import outside
from tests.integration.test_slack_decisions import room

__all__ = ["_no_pauses", "locks", "one_step", "outside", "place", "room", "scaling", "sql", "store"]
