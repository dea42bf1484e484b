import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fresh } from '../support/world.js';

export function cache(world) {
  const miss = { event: 'pusher:cache_miss', data: {} };
  const member = { user_id: 'ann', user_info: {} };

  describe('a cache channel', () => {
    for (const prefix of ['cache', 'private-cache', 'presence-cache']) {
      test(`P28 P29 P30: named ${prefix}- tells of a miss, then replays the last event`, async (t) => {
        const name = fresh(`${prefix}-prices`);
        const first = (await world.connect(t, { member })).subscribe(name);
        await first.succeeded();
        assert.deepEqual(await first.next(), miss);
        await world.server.trigger(name, 'price', 1);
        await world.server.trigger(name, 'price', { now: 2 });
        assert.deepEqual(await first.next(), { event: 'price', data: 1 });
        assert.deepEqual(await first.next(), { event: 'price', data: { now: 2 } });

        const second = (await world.connect(t, { member })).subscribe(name);
        await second.succeeded();
        assert.deepEqual(await second.next(), { event: 'price', data: { now: 2 } });
        await world.server.trigger(name, 'marker', 3);
        assert.deepEqual(await second.next(), { event: 'marker', data: 3 });
      });
    }

    test('P28: keeps an event that nobody was there to hear, and one that left a connection out', async (t) => {
      const name = fresh('cache-prices');
      await world.server.trigger(name, 'price', 1);
      const ann = await world.connect(t);
      const hers = ann.subscribe(name);
      await hers.succeeded();
      assert.deepEqual(await hers.next(), { event: 'price', data: 1 });
      await world.server.trigger(name, 'price', 2, { socket_id: ann.socketId });
      const his = (await world.connect(t)).subscribe(name);
      await his.succeeded();
      assert.deepEqual(await his.next(), { event: 'price', data: 2 });
      await world.server.trigger(name, 'marker', 3);
      assert.deepEqual(await hers.next(), { event: 'marker', data: 3 });
    });

    test('P30: keeps its event when the last subscriber leaves', async (t) => {
      const name = fresh('cache-prices');
      const ann = await world.connect(t);
      const before = ann.subscribe(name);
      await before.succeeded();
      assert.deepEqual(await before.next(), miss);
      await world.server.trigger(name, 'price', 1);
      assert.deepEqual(await before.next(), { event: 'price', data: 1 });
      ann.pusher.unsubscribe(name);
      const after = ann.subscribe(name);
      await after.succeeded();
      assert.deepEqual(await after.next(), { event: 'price', data: 1 });
    });

    test('P28: does not keep client events', async (t) => {
      const name = fresh('private-cache-prices');
      const [ann, bob] = [await world.connect(t), await world.connect(t)];
      const [hers, his] = [ann.subscribe(name), bob.subscribe(name)];
      await hers.succeeded();
      await his.succeeded();
      assert.deepEqual(await his.next(), miss);
      hers.channel.trigger('client-price', 1);
      assert.deepEqual(await his.next(), { event: 'client-price', data: 1 });
      const late = (await world.connect(t)).subscribe(name);
      await late.succeeded();
      assert.deepEqual(await late.next(), miss);
    });

    test('P20: is only one with a dash in its name', async (t) => {
      const name = fresh('cachefoo');
      await world.server.trigger(name, 'price', 1);
      const prices = (await world.connect(t)).subscribe(name);
      await prices.succeeded();
      await world.server.trigger(name, 'marker', 2);
      assert.deepEqual(await prices.next(), { event: 'marker', data: 2 });
    });
  });
}
