"""What the tests of killed searches compare with."""

from __future__ import annotations

import pytest

from tests.support.searches import Undisturbed, shared_folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Gives what searches come to that nothing happens to."""
    return Undisturbed(shared_folder(tmp_path_factory, "undisturbed"))
