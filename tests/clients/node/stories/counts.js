import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { counted } from '../support/apps.js';
import { fresh } from '../support/world.js';

export function counts(world) {
  const count = (subscription_count) => ({ event: 'pusher:subscription_count', data: { subscription_count } });

  describe('the subscription count', () => {
    for (const prefix of ['news', 'private-news', 'cache-news']) {
      test(`P37: of a channel named ${prefix} is told on every change`, async (t) => {
        const name = fresh(prefix);
        if (prefix === 'cache-news') await world.broker.sdk(counted).trigger(name, 'kept', 1);
        const [ann, bob] = [await world.connect(t, { app: counted }), await world.connect(t, { app: counted })];
        const counts = (subscription) => subscription.of('pusher:subscription_count');
        const hers = ann.subscribe(name);
        const atHers = counts(hers);
        assert.deepEqual(await atHers.next(), { data: { subscription_count: 1 } });
        const his = bob.subscribe(name);
        const atHis = counts(his);
        assert.deepEqual(await atHis.next(), { data: { subscription_count: 2 } });
        assert.deepEqual(await atHers.next(), { data: { subscription_count: 2 } });
        assert.equal(hers.channel.subscriptionCount, 2);
        bob.leave();
        assert.deepEqual(await atHers.next(), { data: { subscription_count: 1 } });
        assert.equal(hers.channel.subscriptionCount, 1);
      });
    }

    test('P37: follows the answer to the subscription', async (t) => {
      const news = (await world.connect(t, { app: counted })).subscribe(fresh('news'));
      await news.succeeded();
      assert.deepEqual(await news.next(), count(1));
    });

    test('P37: is not told on a presence channel', async (t) => {
      const name = fresh('presence-room');
      const room = (await world.connect(t, { app: counted, member: { user_id: 'ann' } })).subscribe(name);
      await room.succeeded();
      await world.broker.sdk(counted).trigger(name, 'marker', 1);
      assert.deepEqual(await room.next(), { event: 'marker', data: 1 });
    });

    test('P37: is not told by an app that did not ask for it', async (t) => {
      const name = fresh('news');
      const news = (await world.connect(t)).subscribe(name);
      await news.succeeded();
      await (await world.connect(t)).subscribe(name).succeeded();
      await world.server.trigger(name, 'marker', 1);
      assert.deepEqual(await news.next(), { event: 'marker', data: 1 });
    });
  });
}
