"""What several tests of the graph suite ask first."""

import pytest

from harness.judge.engine_graph import without_attention


@pytest.fixture
def require_attention(observe):
    """Skip, in words, what asks about attention of a tower whose blocks have none: it is listed as not run."""

    def requiring(subject):
        if words := without_attention(observe.graph(subject)):
            pytest.skip(words)

    return requiring
