// A WebSocket client that says hello and never anything again, not even a pong.

import { connect } from 'node:net';
import { within } from './inbox.js';

/** The close code with which the broker gives the mute peer up. */
export async function codeForMutePeer(t, port, key) {
  const socket = connect(port, '127.0.0.1');
  t.after(() => socket.destroy());
  socket.write(
    `GET /app/${key}?protocol=7&client=mute HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: Upgrade\r\n` +
      'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  );
  const closed = (async () => {
    let bytes = Buffer.alloc(0);
    for await (const chunk of socket) {
      bytes = Buffer.concat([bytes, chunk]);
      const code = closeCode(bytes);
      if (code) return code;
    }
    throw new Error(`the connection ended without a close frame: ${bytes.toString('latin1')}`);
  })();
  return within(closed, 'the broker to give up a mute peer');
}

function closeCode(bytes) {
  const head = bytes.indexOf('\r\n\r\n');
  if (head < 0) return undefined;
  let rest = bytes.subarray(head + 4);
  while (rest.length >= 4) {
    if (rest[0] === 0x88) return rest.readUInt16BE(2);
    const [start, length] = rest[1] === 126 ? [4, rest.readUInt16BE(2)] : [2, rest[1]];
    rest = rest.subarray(start + length);
  }
  return undefined;
}
