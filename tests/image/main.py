"""Runs the tests of the image, and says of them what tests/run counts."""

import sys
import unittest

import engine


def main():
    names = sys.argv[1:] or ["test_contents", "test_running"]
    with engine.opened() as problem:
        if problem:
            print(f"!!! image suite skipped: no container can be run on this machine: {problem} !!!")
            return 0
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
        result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    for test, reason in result.skipped:
        print(f"!!! {test.id()} skipped: {reason} !!!")
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad - len(result.skipped)} passed, {bad} failed")
    return 1 if bad else 0


sys.exit(main())
