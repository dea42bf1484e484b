import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { shop } from '../support/apps.js';
import { Inbox } from '../support/inbox.js';
import { fresh } from '../support/world.js';

export function encrypted(world) {
  describe('an encrypted channel', () => {
    test('P45: brings single events in the clear only to pusher-js', async (t) => {
      const name = fresh('private-encrypted-orders');
      const ann = await world.connect(t);
      const orders = ann.subscribe(name);
      await orders.succeeded();
      assert.equal((await ann.frames.next()).event, 'pusher_internal:subscription_succeeded');
      const secret = { card: '4242 Zoë 日本' };
      await world.server.trigger(name, 'paid', secret);
      assert.deepEqual(await orders.next(), { event: 'paid', data: secret });
      const onTheWire = await ann.frames.next();
      assert.deepEqual(Object.keys(onTheWire.data).sort(), ['ciphertext', 'nonce']);
    });

    test('P45 P81: brings events of a batch, next to those of other channels', async (t) => {
      const [hidden, plain] = [fresh('private-encrypted-orders'), fresh('orders')];
      const ann = await world.connect(t);
      const [first, second] = [ann.subscribe(hidden), ann.subscribe(plain)];
      await first.succeeded();
      await second.succeeded();
      await world.server.triggerBatch([
        { channel: hidden, name: 'paid', data: { id: 1 } },
        { channel: plain, name: 'placed', data: { id: 2 } },
        { channel: hidden, name: 'paid', data: 'three' },
      ]);
      assert.deepEqual(await first.next(), { event: 'paid', data: { id: 1 } });
      assert.deepEqual(await first.next(), { event: 'paid', data: 'three' });
      assert.deepEqual(await second.next(), { event: 'placed', data: { id: 2 } });
    });

    test('P45: lets in a client whose key is outdated, which then asks for the new one', async (t) => {
      const name = fresh('private-encrypted-orders');
      const old = world.broker.sdk(shop, { encryptionMasterKeyBase64: Buffer.alloc(32, 7).toString('base64') });
      const asked = new Inbox('the requests for permits');
      let issuer = old;
      const ann = await world.connect(t, {
        options: {
          channelAuthorization: {
            customHandler: ({ socketId, channelName }, answer) => {
              asked.put(channelName);
              answer(null, issuer.authorizeChannel(socketId, channelName));
            },
          },
        },
      });
      const orders = ann.subscribe(name);
      await orders.succeeded();
      assert.equal(await asked.next(), name);
      issuer = world.server;
      await world.server.trigger(name, 'paid', 1);
      assert.equal(await asked.next(), name);
      assert.deepEqual(await orders.next(), { event: 'paid', data: 1 });
    });

    test('P28 P45: with a cache replays the last event', async (t) => {
      const name = fresh('private-encrypted-cache-orders');
      await world.server.trigger(name, 'paid', { id: 7 });
      const orders = (await world.connect(t)).subscribe(name);
      await orders.succeeded();
      assert.deepEqual(await orders.next(), { event: 'paid', data: { id: 7 } });
    });
  });
}
