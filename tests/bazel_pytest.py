"""The main of every Bazel test: runs pytest on the files and options it is given."""

import sys

import pytest

if __name__ == "__main__":
    # No cache: what a test leaves in Bazel's runfiles is thrown away.
    sys.exit(pytest.main(["-p", "no:cacheprovider", *sys.argv[1:]]))
