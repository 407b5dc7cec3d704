import pytest
from support import figure_frames


@pytest.fixture
def results():
    return figure_frames.results()


@pytest.fixture
def history():
    return figure_frames.history()


@pytest.fixture
def rewards():
    return figure_frames.rewards()


@pytest.fixture
def gates():
    return figure_frames.gates()


@pytest.fixture
def predictions():
    return figure_frames.predictions()


@pytest.fixture
def sizes():
    return figure_frames.sizes()


@pytest.fixture
def figures():
    return figure_frames.figures()
