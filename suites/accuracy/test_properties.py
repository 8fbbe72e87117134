"""What must hold of an engine whatever it is given: rows that stand alone, calls that fail, numbers that stay finite."""

import pytest

from harness.judge.accuracy.properties import as_promised, near, same_bits, stays_finite

pytestmark = pytest.mark.accuracy


@pytest.fixture
def near_home(bench, observe, expect, for_all):
    """Say that rows stay where they were, within what gate.toml allows of this property."""

    def expecting(metric, drawn, pairs_of):
        ceiling = observe.limit(metric, bench.engine)
        expect(for_all(drawn, lambda structure: near(metric, pairs_of(structure), ceiling=ceiling)))

    return expecting


@pytest.fixture
def require_neighbours(bench):
    """Skip, in words, what asks how rows of one batch get along: it is listed as not run."""
    if bench.batch == 1:
        pytest.skip("the evaluation runs this engine on one row at a time, so that no row has a neighbour")


@pytest.fixture
def require_lengths(bench):
    """Skip, in words, what asks how batches of several lengths get along."""
    if bench.engine.batch.is_fixed:
        pytest.skip(f"the engine takes batches of {bench.engine.batch.maximum} rows and no others")


@pytest.fixture
def require_ends(bench):
    """Skip, in words, what asks about the ends of captions of an encoder that does not read up to one."""
    if words := bench.why_not_captions():
        pytest.skip(words)


@pytest.mark.gates("property_repeat")
def test_the_same_input_gives_the_same_bits_again(bench, expect, for_all):
    expect(for_all(bench.repeats, lambda size: same_bits("property_repeat", bench.repeated(size))))


@pytest.mark.gates("property_reload")
def test_an_engine_loaded_once_more_gives_the_same_bits(bench, expect):
    expect(same_bits("property_reload", bench.reloaded()))


@pytest.mark.gates("property_batch_order")
def test_a_row_is_the_same_in_another_place_of_the_batch(bench, near_home, require_neighbours):
    near_home("property_batch_order", bench.crowds, bench.moved)


@pytest.mark.gates("property_batch_size")
def test_a_row_is_the_same_in_a_batch_of_another_length(bench, near_home, require_lengths):
    near_home("property_batch_size", bench.sizes, bench.sized)


@pytest.mark.gates("property_duplicates")
def test_the_same_row_twice_in_a_batch_is_twice_the_same(bench, near_home, require_neighbours):
    near_home("property_duplicates", bench.crowds, bench.twins)


@pytest.mark.gates("property_neighbours")
def test_a_row_does_not_feel_its_neighbours_whatever_they_are(bench, near_home, require_neighbours):
    near_home("property_neighbours", bench.crowds, bench.stayed)


@pytest.mark.gates("property_special_values", tower="image")
def test_finite_pictures_have_finite_embeddings_however_odd(bench, expect, for_all):
    expect(for_all(bench.crowds, lambda crowd: stays_finite("property_special_values", *bench.special(crowd))))


@pytest.mark.gates("property_after_eot", tower="text")
def test_nothing_after_the_end_of_a_caption_counts(bench, near_home, require_ends):
    near_home("property_after_eot", bench.crowds, bench.tails)


@pytest.mark.gates("property_lengths", tower="text")
def test_captions_of_every_length_stay_near_fp32(bench, near_home, require_ends):
    near_home("property_lengths", bench.crowds, bench.captions)


@pytest.mark.gates("property_profile")
def test_every_batch_of_the_profile_runs_and_any_other_is_refused(bench, observe, expect):
    outcomes, note = bench.calls(rows_allowed=observe.limit("property_rows", bench.engine))
    expect(as_promised("property_profile", outcomes, note=note))


@pytest.mark.gates("property_contiguity")
def test_rows_scattered_in_memory_give_the_same_bits(bench, expect):
    expect(same_bits("property_contiguity", bench.scattered()))
