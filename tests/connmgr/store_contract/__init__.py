"""What every store of the login table does, whichever it is."""

import pytest

pytest.register_assert_rewrite("tests.connmgr.store_contract.contract")
