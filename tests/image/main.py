"""Runs the tests of the image, and says of them what tests/run counts."""

import signal
import sys
import unittest

import engine


class Result(unittest.TextTestResult):
    """Counts what has passed too: a failing class or module is none of the tests that were run."""

    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def main():
    # As Ctrl-C, which unittest passes on: nothing is left behind when we are told to stop.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = sys.argv[1:] or ["test_contents", "test_running"]
    with engine.opened():
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
        result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    for test, reason in result.skipped:
        print(f"!!! {test.id()} skipped: {reason} !!!")
    bad = len(result.failures) + len(result.errors)
    print(f"{result.passed} passed, {bad} failed")
    return 1 if bad else 0


sys.exit(main())
