import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { quiet, shop } from '../support/apps.js';
import { BackEnd } from '../support/back_end.js';
import { fresh } from '../support/world.js';

export function channels(world) {
  describe('a public channel', () => {
    test('P22 P23 P39: brings what the server SDK publishes, of any JSON type', async (t) => {
      const name = fresh('orders');
      const orders = (await world.connect(t)).subscribe(name);
      assert.deepEqual(await orders.succeeded(), {});
      for (const data of [
        { id: 7, lines: ['a', 'b'] },
        ['x', 1],
        'plain text',
        42,
        true,
        { quote: '"\\ \u2028 </script>' },
      ]) {
        await world.server.trigger(name, 'placed', data);
        assert.deepEqual(await orders.next(), { event: 'placed', data });
      }
    });

    test('P39: brings text that is no JSON exactly as it was sent', async (t) => {
      const name = fresh('raw');
      const raw = (await world.connect(t)).subscribe(name);
      await raw.succeeded();
      for (const data of ['{not json', '  spaces\t\n', 'Zoë 日本 🎉 \u0000\u001f', '\\u0041\\"']) {
        await world.server.trigger(name, 'text', data);
        assert.deepEqual(await raw.next(), { event: 'text', data });
      }
    });

    test('P39 P77: brings events of exactly 10 240 bytes, ASCII or not', async (t) => {
      const name = fresh('large');
      const large = (await world.connect(t)).subscribe(name);
      await large.succeeded();
      for (const data of ['x'.repeat(10_240), `x${'日'.repeat(3_413)}`, '"'.repeat(10_240)]) {
        assert.equal(Buffer.byteLength(data), 10_240);
        await world.server.trigger(name, 'large', data);
        assert.deepEqual(await large.next(), { event: 'large', data });
      }
    });

    test('P20: is also one whose name merely resembles a private one', async (t) => {
      const ann = await world.connect(t);
      for (const name of [
        'privatefoo',
        'presencefoo',
        'cachefoo',
        'my-private-foo',
        'Private-foo',
        'private',
        'presence',
      ]) {
        const channel = ann.subscribe(name);
        assert.deepEqual(await channel.succeeded(), {});
        await world.server.trigger(name, 'marker', name);
        assert.deepEqual(await channel.next(), { event: 'marker', data: name });
      }
    });

    test('P38: keeps the order of its events', async (t) => {
      const [one, two] = [fresh('series'), fresh('series')];
      const ann = await world.connect(t);
      const [first, second] = [ann.subscribe(one), ann.subscribe(two)];
      await first.succeeded();
      await second.succeeded();
      const channelOf = (number) => (number % 3 === 0 ? two : one);
      for (let start = 0; start < 200; start += 10) {
        await world.server.triggerBatch(
          Array.from({ length: 10 }, (_, i) => ({ channel: channelOf(start + i), name: 'n', data: `${start + i}` })),
        );
      }
      for (let number = 0; number < 200; number++) {
        const subscription = number % 3 === 0 ? second : first;
        assert.deepEqual(await subscription.next(), { event: 'n', data: number });
      }
    });

    test('P79: leaves out the connection that the publisher names', async (t) => {
      const name = fresh('orders');
      const ann = await world.connect(t);
      const bob = await world.connect(t);
      const [hers, his] = [ann.subscribe(name), bob.subscribe(name)];
      await hers.succeeded();
      await his.succeeded();
      await world.server.trigger(name, 'edited', 1, { socket_id: ann.socketId });
      await world.server.trigger(name, 'marker', 2);
      assert.deepEqual(await his.next(), { event: 'edited', data: 1 });
      assert.deepEqual(await his.next(), { event: 'marker', data: 2 });
      assert.deepEqual(await hers.next(), { event: 'marker', data: 2 });
    });

    test('P25 P26: brings nothing after it was left, and can be entered again', async (t) => {
      const name = fresh('orders');
      const ann = await world.connect(t);
      await ann.subscribe(name).succeeded();
      ann.pusher.unsubscribe(name);
      await ann.heard(); // pusher-js passes over what comes for a channel it has left: look at the frames
      await world.server.trigger(name, 'missed', 1);
      const again = ann.subscribe(name);
      await again.succeeded();
      await world.server.trigger(name, 'marker', 2);
      const { event } = await ann.frames.next();
      assert.equal(event, 'pusher_internal:subscription_succeeded');
      assert.deepEqual(await ann.frames.next(), { event: 'marker', channel: name, data: 2 });
      assert.deepEqual(await again.next(), { event: 'marker', data: 2 });
    });

    test('P23: that was left and entered again before the first answer brings each event once', async (t) => {
      const name = fresh('orders');
      const ann = await world.connect(t);
      ann.pusher.subscribe(name);
      ann.pusher.unsubscribe(name);
      const orders = ann.subscribe(name);
      await orders.succeeded();
      await world.server.trigger(name, 'placed', 1);
      await world.server.trigger(name, 'marker', 2);
      assert.deepEqual(await orders.next(), { event: 'placed', data: 1 });
      assert.deepEqual(await orders.next(), { event: 'marker', data: 2 });
    });

    test('P24: is entered once, however often one asks', async (t) => {
      const name = fresh('orders');
      const ann = await world.connect(t);
      const orders = ann.subscribe(name);
      await orders.succeeded();
      ann.say('pusher:subscribe', { channel: name, auth: '' });
      assert.deepEqual(await ann.errors.next(), { code: null, message: `Existing subscription to channel ${name}` });
      await world.server.trigger(name, 'placed', 1);
      await world.server.trigger(name, 'marker', 2);
      assert.deepEqual(await orders.next(), { event: 'placed', data: 1 });
      assert.deepEqual(await orders.next(), { event: 'marker', data: 2 });
    });

    test('P25: cannot be left before it was entered', async (t) => {
      const name = fresh('orders');
      const ann = await world.connect(t);
      ann.say('pusher:unsubscribe', { channel: name });
      const { code, message } = await ann.errors.next();
      assert.equal(code, null);
      assert.equal(message, `No current subscription to channel ${name}, or subscription in progress`);
    });

    test('P22: is entered without any auth as well', async (t) => {
      const name = fresh('orders');
      const ann = await world.connect(t);
      ann.say('pusher:subscribe', { channel: name });
      assert.deepEqual(await ann.frames.next(), {
        event: 'pusher_internal:subscription_succeeded',
        channel: name,
        data: {},
      });
    });

    test('P21 P27: with a name that is not allowed is refused on the channel', async (t) => {
      const ann = await world.connect(t);
      for (const name of ['two words', 'a:b', 'a/b', 'zoë', 'a'.repeat(165)]) {
        const refusal = await ann.subscribe(name).refused();
        assert.deepEqual([refusal.type, refusal.status], ['InvalidRequest', 400], name);
        assert.match(refusal.error, /^Invalid channel name '/);
        assert.equal((await ann.errors.next()).code, null);
      }
      const longest = ann.subscribe('a'.repeat(164));
      await longest.succeeded();
    });

    test('P39: of one app is not that of another', async (t) => {
      const name = fresh('orders');
      const ours = (await world.connect(t)).subscribe(name);
      const theirs = (await world.connect(t, { app: quiet })).subscribe(name);
      await ours.succeeded();
      await theirs.succeeded();
      await world.server.trigger(name, 'ours', 1);
      await world.broker.sdk(quiet).trigger(name, 'theirs', 2);
      assert.deepEqual(await theirs.next(), { event: 'theirs', data: 2 });
      assert.deepEqual(await ours.next(), { event: 'ours', data: 1 });
    });

    test('P40: is the same for all keys of its app', async (t) => {
      const spare = shop.keys[1];
      const name = fresh('private-orders');
      const ann = await world.connect(t);
      const bob = await world.connect(t, { key: spare.key });
      const [hers, his] = [ann.subscribe(name), bob.subscribe(name)];
      await hers.succeeded();
      await his.succeeded();
      await world.broker.sdk(shop, spare).trigger(name, 'placed', 1);
      assert.deepEqual(await hers.next(), { event: 'placed', data: 1 });
      assert.deepEqual(await his.next(), { event: 'placed', data: 1 });
    });
  });

  describe('a private channel', () => {
    let backEnd;
    before(async () => (backEnd = await BackEnd.start(world.broker)));
    after(() => backEnd.stop());

    /** A client whose permits for channels are what `permit(socketId, channelName)` says. */
    const withPermits = (t, permit) =>
      world.connect(t, {
        options: {
          channelAuthorization: {
            customHandler: ({ socketId, channelName }, answer) => answer(null, permit(socketId, channelName)),
          },
        },
      });

    /** That a refusal came with this message, and that the connection can still enter another channel. */
    const refusedWith = async (client, name, message) => {
      const refusal = await client.subscribe(name).refused();
      assert.deepEqual([refusal.type, refusal.status], ['AuthError', 401]);
      assert.match(refusal.error, message);
      const error = await client.errors.next();
      assert.equal(error.code, null);
      assert.match(error.message, message);
      await client.subscribe(fresh('public')).succeeded();
    };

    test('P23 P40: is entered with a permit of the server SDK', async (t) => {
      const name = fresh('private-orders');
      const orders = (await world.connect(t)).subscribe(name);
      assert.deepEqual(await orders.succeeded(), {});
      await world.server.trigger(name, 'placed', { id: 7 });
      assert.deepEqual(await orders.next(), { event: 'placed', data: { id: 7 } });
    });

    test("P40: is entered through the app's own HTTP endpoint", async (t) => {
      const name = fresh('private-orders');
      const ann = await world.connect(t, {
        options: {
          channelAuthorization: { endpoint: `${backEnd.url}/pusher/auth`, transport: 'ajax', params: { user: 'ann' } },
        },
      });
      const orders = ann.subscribe(name);
      await orders.succeeded();
      await world.server.trigger(name, 'placed', 1);
      assert.deepEqual(await orders.next(), { event: 'placed', data: 1 });
    });

    test('P40: is entered with the older options authEndpoint and auth', async (t) => {
      const client = await world.connect(t, {
        options: {
          channelAuthorization: undefined,
          authEndpoint: `${backEnd.url}/pusher/auth`,
          auth: { headers: { Authorization: 'Bearer ann' } },
        },
      });
      await client.subscribe(fresh('private-orders')).succeeded();
    });

    test('P40: is entered with the older option authorizer', async (t) => {
      const client = await world.connect(t, {
        options: {
          channelAuthorization: undefined,
          authorizer: ({ name }) => ({
            authorize: (socketId, answer) => answer(null, world.server.authorizeChannel(socketId, name)),
          }),
        },
      });
      await client.subscribe(fresh('private-orders')).succeeded();
    });

    test('P27: that the app itself forbids is never asked of the server', async (t) => {
      const ann = await world.connect(t, {
        options: {
          channelAuthorization: { endpoint: `${backEnd.url}/pusher/auth`, transport: 'ajax', params: { user: 'ann' } },
        },
      });
      const refusal = await ann.subscribe(fresh('private-forbidden')).refused();
      assert.equal(refusal.status, 403);
      ann.say('pusher:ping', {});
      assert.equal((await ann.frames.next()).event, 'pusher:pong');
    });

    test('P27 P40: is refused with a permit signed with another secret', async (t) => {
      const thief = world.broker.sdk(shop, { secret: 'stolen' });
      const client = await withPermits(t, (socketId, name) => thief.authorizeChannel(socketId, name));
      const name = fresh('private-orders');
      await refusedWith(
        client,
        name,
        new RegExp(`^Invalid signature: Expected HMAC SHA256 hex digest of ${client.socketId}:${name}, but got `),
      );
    });

    test('P27 P43: is refused with a permit for another connection or another channel', async (t) => {
      const bob = await world.connect(t);
      const socket = await withPermits(t, (_, name) => world.server.authorizeChannel(bob.socketId, name));
      await refusedWith(socket, fresh('private-orders'), /^Invalid signature/);
      const channel = await withPermits(t, (socketId) => world.server.authorizeChannel(socketId, 'private-other'));
      await refusedWith(channel, fresh('private-orders'), /^Invalid signature/);
    });

    test('P27 P43: is refused with the key of another app, with no permit and with one without a colon', async (t) => {
      const other = await withPermits(t, (socketId, name) => world.broker.sdk(quiet).authorizeChannel(socketId, name));
      await refusedWith(other, fresh('private-orders'), /^Invalid key in subscription auth data: 'quiet-key'/);
      const none = await withPermits(t, () => ({ auth: '' }));
      await refusedWith(none, fresh('private-orders'), /^Auth info required to subscribe to private-orders-/);
      const crooked = await withPermits(t, () => ({ auth: 'no colon here' }));
      await refusedWith(crooked, fresh('private-orders'), /./);
    });

    test('P27: that was refused can be entered with a better permit', async (t) => {
      const name = fresh('private-orders');
      let server = world.broker.sdk(shop, { secret: 'stolen' });
      const client = await withPermits(t, (socketId, channel) => server.authorizeChannel(socketId, channel));
      const orders = client.subscribe(name);
      await orders.refused();
      server = world.server;
      orders.channel.subscribe(); // a subscription the server has refused stays pending in pusher-js: ask again
      await orders.succeeded();
      await world.server.trigger(name, 'placed', 1);
      assert.deepEqual(await orders.next(), { event: 'placed', data: 1 });
    });

    test('P42: takes channel_data into the signature as well', async (t) => {
      const signed = await withPermits(t, (socketId, name) =>
        world.server.authorizeChannel(socketId, name, { x: 'Zoë' }),
      );
      await signed.subscribe(fresh('private-orders')).succeeded();
      const slipped = await withPermits(t, (socketId, name) => ({
        ...world.server.authorizeChannel(socketId, name),
        channel_data: '{"x":1}',
      }));
      await refusedWith(slipped, fresh('private-orders'), /:\{"x":1\}, but got /);
    });
  });
}
