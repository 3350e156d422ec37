"""What `make test` keeps of the banks loses points in every test cell that the whole bank does."""

import pytest
import test_ex1
import test_ex2
import test_ex3
import test_ex4
import test_ex5


@pytest.mark.parametrize("bank", [test_ex1, test_ex2, test_ex3, test_ex4, test_ex5])
def test_decisive_submissions_reach_every_test_cell(bank):
    assert bank.DECISIVE <= bank.RIGHT.keys() | bank.WRONG.keys(), "it was renamed"
    assert bank.DECISIVE & bank.RIGHT.keys(), "a right way is kept"
    lost = {name: set(lost) for name, (_, lost) in bank.WRONG.items()}
    kept = set().union(*(cells for name, cells in lost.items() if name in bank.DECISIVE))
    assert kept == set().union(*lost.values())
