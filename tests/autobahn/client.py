"""Runs the Autobahn fuzzing client, as converted by `convert.py`, against a WebSocket echo endpoint.

Usage: client.py CONVERTED_DIR ws://127.0.0.1:PORT CASES RESULTS.json

Prints every case that failed and the counts, writes the verdict and duration of each case to RESULTS.json, and
exits 1 unless every case was run and passed. NON-STRICT passes, as it does in the suite: such a case has several
right answers, ours being another one than the one preferred.

A `str` of the suite is the latin-1 view of bytes: the functions below convert it where it meets the WebSocket
library, which wants `bytes`.
"""

import binascii
import contextlib
import json
import os
import sys
import types
from collections import Counter

import txaio

# A broken server makes a case wait for its own time-out, 100 s at most; all of them together are limited here.
TIME_LIMIT_S = 240
FINE = ("OK", "NON-STRICT", "INFORMATIONAL")
FINE_CLOSE = ("OK", "INFORMATIONAL")

converted, url, cases, results_path = os.path.abspath(sys.argv[1]), *sys.argv[2:5]
sys.path.insert(0, converted)
txaio.use_twisted()

# The package's own __init__ would import the parts that were dropped.
package = types.ModuleType("autobahntestsuite")
package.__path__ = [os.path.join(converted, "autobahntestsuite")]
package.version = "converted"
sys.modules["autobahntestsuite"] = package


def text(value):
    """The suite's view of what came from the library."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("latin-1")
    if isinstance(value, (list, tuple)):
        return type(value)(text(item) for item in value)
    if isinstance(value, dict):
        return {key: text(item) for key, item in value.items()}
    return value


def octets(value):
    """The library's view of what comes from the suite."""
    return value.encode("latin-1") if isinstance(value, str) else value


_hex, _unhex = binascii.b2a_hex, binascii.a2b_hex
binascii.b2a_hex = lambda value: _hex(octets(value)).decode()
binascii.a2b_hex = lambda value: _unhex(value).decode("latin-1")

from autobahn.websocket import utf8validator  # noqa: E402

_validate = utf8validator.Utf8Validator.validate
utf8validator.Utf8Validator.validate = lambda self, value: _validate(self, octets(value))

from autobahntestsuite import fuzzing  # noqa: E402
from autobahntestsuite.case.case import Case  # noqa: E402
from twisted.internet import reactor  # noqa: E402
from twisted.python import log  # noqa: E402

Case.compare = lambda self, one, other: text(one) == text(other)
fuzzing.asciiLogData = lambda value, maxlen=64, replace=False: octets(value)[:maxlen].decode("utf8", "replace")

Fuzzing, Client, Library = fuzzing.FuzzingProtocol, fuzzing.FuzzingClientProtocol, fuzzing.WebSocketClientProtocol


class Protocol:
    """What replaces methods of the suite's client: the same, with the conversion at the edge."""

    def failConnection(self):
        self._fail_connection()

    def sendFrame(
        self, opcode, payload=b"", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False
    ):
        mask = octets(mask) if mask else mask
        Library.sendFrame(self, opcode, octets(payload), fin, rsv, mask, payload_len, chopsize, sync)

    def sendMessage(
        self, payload, isBinary=False, fragmentSize=None, sync=False, doNotCompress=False, binary=None
    ):
        is_binary = bool(isBinary if binary is None else binary)
        Library.sendMessage(self, octets(payload), is_binary, fragmentSize, sync, doNotCompress)

    def sendMessageFrame(self, payload, *args, **kwargs):
        return Library.sendMessageFrame(self, octets(payload), *args, **kwargs)

    def sendMessageFrameData(self, payload, *args, **kwargs):
        return Library.sendMessageFrameData(self, octets(payload), *args, **kwargs)

    def sendPing(self, payload=None):
        Library.sendPing(self, octets(payload))

    def sendPong(self, payload=None):
        Library.sendPong(self, octets(payload))

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        Library.sendCloseFrame(self, code, octets(reasonUtf8), isReply)

    def onMessage(self, payload, isBinary):
        Fuzzing.onMessage(self, text(payload), isBinary)

    def onPing(self, payload):
        if self.runCase:
            self.runCase.onPing(text(payload))
        Library.onPing(self, payload)

    def onPong(self, payload):
        Fuzzing.onPong(self, text(payload))

    # Some cases ask for the number of frames by opcode; nobody asks for the octets.
    def logRxFrame(self, header, payload):
        self.rxFrameStats[header.opcode] = self.rxFrameStats.get(header.opcode, 0) + 1

    def logTxFrame(self, header, *_):
        self.txFrameStats[header.opcode] = self.txFrameStats.get(header.opcode, 0) + 1

    def logRxOctets(self, *_):
        pass

    def logTxOctets(self, *_):
        pass


for name, method in vars(Protocol).items():
    if not name.startswith("__"):
        setattr(Client, name, method)

expected = []
results = {}
errors = []


def start(self, spec, debug=False):
    """Replaces the factory's constructor, which prepares reports we do not make."""
    fuzzing.WebSocketClientFactory.__init__(self)
    fuzzing.FuzzingFactory.__init__(self, spec["outdir"])
    self.logOctets, self.logFrames, self.spec, self.currServer = False, True, spec, -1
    self.CaseSet = fuzzing.CaseSet(
        fuzzing.CaseSetname,
        fuzzing.CaseBasename,
        fuzzing.Cases,
        fuzzing.CaseCategories,
        fuzzing.CaseSubCategories,
    )
    self.specCases = self.CaseSet.parseSpecCases(spec)
    self.specExcludeAgentCases = self.CaseSet.parseExcludeAgentCases(spec)
    expected.extend(self.specCases)
    if self.nextServer() and self.nextCase():
        fuzzing.connectWS(self)


def record(self, result):
    results[result["id"]] = {
        key: result[key]
        for key in ("behavior", "behaviorClose", "result", "resultClose", "duration", "remoteCloseCode")
    }


fuzzing.FuzzingClientFactory.__init__ = start
fuzzing.FuzzingFactory.logCase = record
fuzzing.FuzzingFactory.createReports = lambda self: None
log.addObserver(lambda event: errors.append(event.get("failure")) if event.get("isError") else None)

# The suite prints a line per case; only failures are worth one.
with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
    fuzzing.startClient(
        {
            "outdir": ".",
            "servers": [{"url": url, "agent": "fanfare"}],
            "cases": cases.split(","),
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
    )
    reactor.callLater(TIME_LIMIT_S, reactor.stop)
    reactor.run()

failed = {}
for case in expected:
    verdict = results.get(case)
    if verdict is None:
        failed[case] = "not run"
    elif verdict["behavior"] not in FINE or verdict["behaviorClose"] not in FINE_CLOSE:
        failed[case] = "{behavior} / {behaviorClose}: {result} {resultClose} (close {remoteCloseCode})".format(**verdict)
for case, reason in failed.items():
    print(f"FAILED {case} {reason}")
for error in errors:
    print(f"error inside the suite: {error}")
for (behavior, close), count in Counter((r["behavior"], r["behaviorClose"]) for r in results.values()).items():
    print(f"{count} {behavior} / {close}")
with open(results_path, "w") as file:
    json.dump(results, file, indent=1)
print(f"{len(expected) - len(failed)} passed, {len(failed)} failed")
sys.exit(1 if failed or errors or not expected else 0)
