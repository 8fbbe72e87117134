"""How tests of the accuracy suite judge: by name, with what gate.toml allows the engine."""

from functools import partial

import pytest

from harness.judge.accuracy.all_metrics import judgement


@pytest.fixture
def expect_of(observe, expect):
    """Say which metrics of an engine must hold."""

    def expecting(engine, *metrics):
        limit, margin = (partial(allowed, engine=engine) for allowed in (observe.limit, observe.margin))
        for metric in metrics:
            expect(judgement(metric, observe.accuracy(engine), limit=limit, margin=margin))

    return expecting
