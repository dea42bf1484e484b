// What a story starts from: a broker, the server SDK, and clients that are gone when the test ends.

import { createRequire } from 'node:module';
import { Broker } from './broker.js';
import { shop } from './apps.js';
import { Client } from './client.js';

const require = createRequire(import.meta.url);

let names = 0;

/** A channel name that no other test of this process uses. */
export const fresh = (prefix) => `${prefix}-${++names}`;

const isPresence = (channelName) => channelName.startsWith('presence-');

export class World {
  /** `library` is the package of the client library the stories are about. */
  constructor(library, broker) {
    this.library = library;
    this.Pusher = require(library);
    this.broker = broker;
    this.server = broker.sdk(shop);
  }

  static async with(library, settings) {
    return new World(library, await Broker.start(settings));
  }

  /** A world of its own for one test, gone with it. */
  static async for(t, library, settings) {
    const world = await World.with(library, settings);
    t.after(() => world.broker.end());
    return world;
  }

  /**
   * A client of `app`, not yet connected.
   *
   * `member` is who it is in presence channels, `user` who it signs in as; both are what the app's own
   * server would put into the server SDK. `key` is another key than the app's first, `options` go to pusher-js.
   */
  client(t, { app = shop, key = app.keys[0].key, member, user, options = {} } = {}) {
    const sdk = this.broker.sdk(
      app,
      app.keys.find((pair) => pair.key === key),
    );
    const merged = {
      ...this.broker.clientOptions(),
      channelAuthorization: {
        customHandler: ({ socketId, channelName }, answer) =>
          answer(null, sdk.authorizeChannel(socketId, channelName, isPresence(channelName) ? member : undefined)),
      },
      userAuthentication: {
        customHandler: ({ socketId }, answer) => answer(null, sdk.authenticateUser(socketId, user)),
      },
      ...options,
    };
    // Even undefined it would hide the older options.
    if (merged.channelAuthorization === undefined) delete merged.channelAuthorization;
    const client = new Client(this.Pusher, key, merged);
    t.after(() => client.leave());
    return client;
  }

  /** A connected client. */
  connect(t, about) {
    return this.client(t, about).connected();
  }
}
