// Every story a pusher-js client has to tell, whichever its version.

import { after, describe } from 'node:test';
import { World } from '../support/world.js';
import { cache } from './cache.js';
import { channels } from './channels.js';
import { clientEvents } from './client_events.js';
import { connection } from './connection.js';
import { counts } from './counts.js';
import { encrypted } from './encrypted.js';
import { presence } from './presence.js';
import { users } from './users.js';

/** `library` is the package under test. */
export async function tellAll(library) {
  const world = await World.with(library);
  after(() => world.broker.end());
  describe(`${library} in Node`, () => {
    connection(world);
    channels(world);
    presence(world);
    clientEvents(world);
    users(world);
    encrypted(world);
    cache(world);
    counts(world);
  });
}
