"""A project that has the plugin installed and gates nothing notices nothing."""

import pytest


@pytest.fixture
def project(pytester):
    pytester.makepyfile("def test_nothing_of_ours(): pass")
    return pytester


def test_a_run_without_gates_leaves_no_run_directory(project):
    result = project.runpytest_subprocess()

    result.assert_outcomes(passed=1)
    assert not (project.path / "runs").exists()
    assert "enginegate" not in result.stdout.str().replace("plugins: ", "").partition("collected")[2]


def test_the_plugin_works_without_pytest_benchmark(project):
    project.runpytest_subprocess("-p", "no:benchmark").assert_outcomes(passed=1)


def test_the_plugin_works_without_xdist(project):
    project.runpytest_subprocess("-p", "no:xdist").assert_outcomes(passed=1)


def test_expecting_without_a_suite_marker_says_what_to_add(pytester):
    pytester.makepyfile(
        """
        def test_unmarked(engine, observe, expect):
            pass
        """
    )

    result = pytester.runpytest_subprocess("--backends", "fake", "--recipes", "fp16", "--run-dir", "out")

    result.stdout.fnmatch_lines(["*belongs to no suite; mark it with accuracy, graph, benchmark or conformance*"])


def test_markers_of_the_plugin_are_known_to_strict_projects(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.graph
        @pytest.mark.gates("unfused_qdq", needs="layers")
        def test_marked():
            pass
        """
    )

    pytester.runpytest_subprocess("--strict-markers").assert_outcomes(passed=1)


def test_a_gates_marker_that_needs_an_unknown_word_is_refused(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.graph
        @pytest.mark.gates("unfused_qdq", needs="luck")
        def test_marked(engine):
            pass
        """
    )

    result = pytester.runpytest_subprocess()

    result.stdout.fnmatch_lines(["*expected run, build, layers or memory*"])


def test_profiles_of_hypothesis_are_left_alone(pytester):
    pytester.makepyfile(
        """
        import sys
        from hypothesis import settings

        def test_nothing_of_ours():
            assert settings.get_current_profile_name() in ("default", "ci")
            assert not any("harness.pipeline" in name for name in sys.modules)
        """
    )

    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_the_nightly_profile_can_be_chosen_by_hypothesis_own_option(pytester):
    pytester.makepyfile(
        """
        from hypothesis import settings

        def test_chosen():
            assert settings.get_current_profile_name() == "enginegate-nightly"
        """
    )

    pytester.runpytest_subprocess("--hypothesis-profile", "enginegate-nightly").assert_outcomes(passed=1)


def test_a_tower_that_there_is_none_of_is_refused(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.accuracy
        @pytest.mark.gates("finite", tower="audio")
        def test_marked(engine):
            pass
        """
    )

    pytester.runpytest_subprocess().stdout.fnmatch_lines(["*expected image or text, or none for both*"])


def test_accuracy_asks_engine_by_engine_in_the_places_of_its_tests(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.accuracy
        def test_first(engine): pass

        @pytest.mark.graph
        def test_between(engine): pass

        @pytest.mark.accuracy
        def test_second(engine): pass
        """
    )

    result = pytester.runpytest_subprocess(
        "--collect-only", "-q", "--backends", "fake", "--encoders", "ViT-B-32/text", "--recipes", "fp16", "--recipes", "linear"
    )

    asked = [line.partition("::")[2].replace("ViT-B-32/text-", "") for line in result.outlines if "::" in line]
    assert asked == [
        "test_first[fp16-fake]",
        "test_second[fp16-fake]",
        "test_between[fp16-fake]",
        "test_between[linear-fake]",
        "test_first[linear-fake]",
        "test_second[linear-fake]",
    ]


OWN = """
    import pytest

    @pytest.fixture(params=["petrol", "diesel"])
    def engine(request):
        return request.param

    @pytest.fixture
    def prepared():
        return "a meal"

    def test_its_own_engine(engine):
        assert engine in ("petrol", "diesel")

    def test_its_own_meal(prepared):
        assert prepared == "a meal"

    @pytest.mark.parametrize(("engine", "cylinders"), [("steam", 1)])
    def test_its_own_parameters(engine, cylinders):
        assert engine == "steam"

    @pytest.mark.parametrize("engine", [])
    def test_no_engine(engine):
        pass

    @pytest.fixture
    def driven(engine):
        return f"driven by {engine}"

    def test_through_another_fixture(driven):
        assert driven.startswith("driven by")
"""


@pytest.mark.parametrize("gating", [(), ("--encoders", "ViT-B-32/image", "--backends", "fake")], ids=["plain", "beside gates"])
def test_fixtures_of_our_names_that_a_project_has_are_its_own(pytester, gating):
    pytester.makepyfile(OWN)
    pytester.runpytest_subprocess(*gating).assert_outcomes(passed=6, skipped=1)


def test_a_fixture_that_adds_to_ours_gets_the_engines_of_the_selection(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def engine(engine):
            return engine.id.upper()

        def test_it(engine):
            assert engine.startswith("VIT-B-32/IMAGE")
        """
    )
    options = ("--encoders", "ViT-B-32/image", "--backends", "fake", "--recipes", "fp16", "--recipes", "linear")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=2)
