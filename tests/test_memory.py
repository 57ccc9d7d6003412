import resource
import sys

import numpy as np
import pytest

from ncen_tf.untrusted.memory import limited_memory


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_what_goes_beyond_the_room_is_not_allocated_and_the_limit_ends() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(2**28):
        np.ones(2**26, np.uint8)
        with pytest.raises(MemoryError):
            np.ones(2**29, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    np.ones(2**29, np.uint8)
