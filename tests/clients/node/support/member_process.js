// A member of a presence channel in a process of its own, to be killed. Prints `joined` once it is in.
// Arguments: the client library, the app's key, the options for it, the channel, the permit's issuer.

import { createRequire } from 'node:module';
import PusherServer from 'pusher';
import { Client } from './client.js';

const [library, key, options, channel, issuer, member] = process.argv.slice(2);
const sdk = new PusherServer(JSON.parse(issuer));
const client = new Client(createRequire(import.meta.url)(library), key, {
  ...JSON.parse(options),
  channelAuthorization: {
    customHandler: ({ socketId, channelName }, answer) =>
      answer(null, sdk.authorizeChannel(socketId, channelName, JSON.parse(member))),
  },
});
await client.subscribe(channel).succeeded();
console.log('joined');
