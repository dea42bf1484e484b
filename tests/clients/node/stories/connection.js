import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { closed, guarded, sealed, shop, single } from '../support/apps.js';
import { codeForMutePeer } from '../support/mute_peer.js';
import { fresh, World } from '../support/world.js';

export function connection(world) {
  describe('a connection', () => {
    test('P1 P4 P17: is established with a socket id of the agreed form', async (t) => {
      const ann = await world.connect(t);
      assert.equal(ann.connection.state, 'connected');
      assert.match(ann.socketId, /^\d+\.\d+$/);
    });

    test('P4: takes the activity timeout from the server', async (t) => {
      const own = await World.for(t, world.library, { connection: { activity_timeout_s: 45 } });
      const ann = await own.connect(t);
      assert.equal(ann.connection.activityTimeout, 45_000);
    });

    test('P5: has a socket id of its own, and a new one when it comes back', async (t) => {
      const ann = await world.connect(t);
      const bob = await world.connect(t);
      const first = ann.socketId;
      assert.notEqual(first, bob.socketId);
      ann.leave();
      ann.pusher.connect();
      await ann.connected();
      assert.notEqual(ann.socketId, first);
      assert.notEqual(ann.socketId, bob.socketId);
    });

    test('P7: that is idle pings by itself, is answered, and stays', async (t) => {
      const ann = await world.connect(t, { options: { activityTimeout: 300, pongTimeout: 10_000 } });
      for (let pong = 0; pong < 3; pong++) {
        assert.deepEqual(await ann.frames.next('pusher:pong'), { event: 'pusher:pong', data: {} });
      }
      assert.equal(ann.connection.state, 'connected');
    });

    test('P9 P10: that only answers pings outlives a peer that does not', async (t) => {
      const own = await World.for(t, world.library, { connection: { ping_after_s: 1, pong_timeout_s: 2 } });
      const ann = await own.connect(t);
      const news = ann.subscribe('news');
      await news.succeeded();
      const id = ann.socketId;
      assert.equal(await codeForMutePeer(t, own.broker.port, shop.keys[0].key), 4201);
      await own.server.trigger('news', 'still-here', 1);
      assert.deepEqual(await news.next(), { event: 'still-here', data: 1 });
      assert.equal(ann.socketId, id);
    });

    test('P3: with an unknown key is refused with 4001 and does not try again', async (t) => {
      const nobody = world.client(t, { key: 'nobody' });
      const { code, message } = await nobody.errors.next();
      assert.equal(code, 4001);
      assert.equal(typeof message, 'string');
      assert.equal(await nobody.states.next(), 'connecting -> disconnected');
    });

    test('P3: to a disabled app is refused with 4003', async (t) => {
      const ann = world.client(t, { app: closed });
      assert.equal((await ann.errors.next()).code, 4003);
      assert.equal(await ann.states.next(), 'connecting -> disconnected');
    });

    test('P3: without TLS to an app that demands it is refused with 4000, and pusher-js turns to TLS', async (t) => {
      const ann = world.client(t, { app: sealed });
      assert.equal((await ann.errors.next()).code, 4000);
      assert.equal(ann.connection.usingTLS, true);
    });

    test('P3: over the quota of its app is refused with 4004', async (t) => {
      const first = await world.connect(t, { app: single });
      const second = world.client(t, { app: single });
      assert.equal((await second.errors.next()).code, 4004);
      assert.equal(await second.states.next(), 'connecting -> disconnected');
      assert.equal(first.connection.state, 'connected');
    });

    test('P3: to a full server is put off with 4100 and gets in once there is room', async (t) => {
      const own = await World.for(t, world.library, { server: { connections_max: 1 } });
      const first = await own.connect(t);
      const second = own.client(t);
      assert.equal((await second.errors.next()).code, 4100);
      first.leave();
      await second.connected();
    });

    test('P60: that shows no permit in time is closed with 4009, one on a private channel is not', async (t) => {
      const server = world.broker.sdk(guarded);
      const known = await world.connect(t, { app: guarded });
      const orders = known.subscribe('private-orders');
      await orders.succeeded();
      const stranger = await world.connect(t, { app: guarded });
      await stranger.subscribe('news').succeeded();
      assert.match((await stranger.error(4009)).message, /not authorized within timeout/);
      await stranger.reaches('disconnected');
      await server.trigger('private-orders', 'marker', 1);
      assert.deepEqual(await orders.next(), { event: 'marker', data: 1 });
    });

    test('P13 P15: survives what the server does not understand', async (t) => {
      const ann = await world.connect(t);
      ann.connection.send('{"event":');
      assert.deepEqual(await ann.errors.next(), { code: null, message: 'Received invalid JSON' });
      ann.connection.send('{"data":{}}');
      assert.deepEqual(await ann.errors.next(), { code: null, message: 'Missing parameter: event' });
      ann.say('order-pizza', {});
      assert.deepEqual(await ann.errors.next(), {
        code: null,
        message: 'Unsupported event received on socket: order-pizza',
      });
      const name = fresh('news');
      const news = ann.subscribe(name);
      await news.succeeded();
      await world.server.trigger(name, 'marker', 1);
      assert.deepEqual(await news.next(), { event: 'marker', data: 1 });
    });
  });
}
