"""Runs the tests beside it, and closes with one line that says how many passed."""

import pathlib
import sys
import unittest


def main() -> int:
    folder = pathlib.Path(__file__).parent
    sys.path.insert(0, str(folder))
    names = sys.argv[1:]
    if names:
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    else:
        suite = unittest.defaultTestLoader.discover(str(folder))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    passed = result.testsRun - failed - len(result.skipped)
    print(f"cli: {passed} passed, {failed} failed")
    return 0 if result.wasSuccessful() and passed > 0 and not result.skipped else 1


if __name__ == "__main__":
    sys.exit(main())
