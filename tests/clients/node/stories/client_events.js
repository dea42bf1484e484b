import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { quiet } from '../support/apps.js';
import { fresh } from '../support/world.js';

export function clientEvents(world) {
  describe('a client event', () => {
    test('P66 P67 P68: reaches everyone else on a private channel, whatever JSON it carries', async (t) => {
      const name = fresh('private-chat');
      const ann = await world.connect(t);
      const [hers, his] = [ann.subscribe(name), (await world.connect(t)).subscribe(name)];
      await hers.succeeded();
      await his.succeeded();
      const typed = his.of('client-typed');
      for (const data of [{ text: 'hello' }, 'hello', ['a', 1], 42, true, 'Zoë 日本 🎉']) {
        hers.channel.trigger('client-typed', data);
        assert.deepEqual(await his.next(), { event: 'client-typed', data });
        assert.deepEqual(await typed.next(), { data }); // and no user_id
      }
      await world.server.trigger(name, 'marker', 1);
      assert.deepEqual(await hers.next(), { event: 'marker', data: 1 });
    });

    test('P66 P68: says on a presence channel who sent it, to the other tabs of the sender as well', async (t) => {
      const name = fresh('presence-chat');
      const ann = { user_id: 'ann', user_info: {} };
      const sender = (await world.connect(t, { member: ann })).subscribe(name);
      await sender.succeeded();
      const tab = (await world.connect(t, { member: ann })).subscribe(name);
      await tab.succeeded();
      const bob = (await world.connect(t, { member: { user_id: 10 } })).subscribe(name);
      await bob.succeeded();
      const [atTab, atBob, atSender] = [tab, bob, sender].map((channel) => channel.of('client-typed'));

      sender.channel.trigger('client-typed', { text: 'hello' });
      assert.deepEqual(await atTab.next(), { data: { text: 'hello' }, user_id: 'ann' });
      assert.deepEqual(await atBob.next(), { data: { text: 'hello' }, user_id: 'ann' });
      bob.channel.trigger('client-typed', { text: 'hi' });
      assert.deepEqual(await atSender.next(), { data: { text: 'hi' }, user_id: '10' }); // and not her own before it
    });

    test('P68: from the server carries no user_id on a presence channel', async (t) => {
      const name = fresh('presence-chat');
      const room = (await world.connect(t, { member: { user_id: 'ann' } })).subscribe(name);
      await room.succeeded();
      const typed = room.of('client-typed');
      await world.server.trigger(name, 'client-typed', 'by the server');
      assert.deepEqual(await typed.next(), { data: 'by the server' });
    });

    test('P65: is refused where the app does not allow it', async (t) => {
      const name = fresh('private-chat');
      const [ann, bob] = [await world.connect(t, { app: quiet }), await world.connect(t, { app: quiet })];
      const [hers, his] = [ann.subscribe(name), bob.subscribe(name)];
      await hers.succeeded();
      await his.succeeded();
      hers.channel.trigger('client-typed', 1);
      assert.deepEqual(await ann.errors.next(), {
        code: null,
        message: 'To send client events, you must enable this feature in the Settings page of your dashboard.',
      });
      await world.broker.sdk(quiet).trigger(name, 'marker', 2);
      assert.deepEqual(await his.next(), { event: 'marker', data: 2 });
    });

    test('P65: is refused on a public channel and on one the sender is not in', async (t) => {
      const [news, chat] = [fresh('news'), fresh('private-chat')];
      const [ann, bob] = [await world.connect(t), await world.connect(t)];
      const [publicly, privately] = [bob.subscribe(news), bob.subscribe(chat)];
      await publicly.succeeded();
      await privately.succeeded();
      const hers = ann.subscribe(news);
      await hers.succeeded();

      hers.channel.trigger('client-typed', 1);
      assert.deepEqual(await ann.errors.next(), {
        code: null,
        message: 'Client event rejected - only supported on private and presence channels',
      });
      ann.say('client-typed', 1, chat);
      assert.deepEqual(await ann.errors.next(), {
        code: null,
        message: `Cannot broadcast client event (connection not subscribed to channel ${chat})`,
      });
      ann.say('client-typed', 1);
      assert.deepEqual(await ann.errors.next(), {
        code: null,
        message: 'Invalid client event (must contain channel and data)',
      });
      await world.server.trigger([news, chat], 'marker', 2);
      assert.deepEqual(await publicly.next(), { event: 'marker', data: 2 });
      assert.deepEqual(await privately.next(), { event: 'marker', data: 2 });
    });

    test('P65: is refused when it is larger than an event may be', async (t) => {
      const name = fresh('private-chat');
      const [ann, bob] = [await world.connect(t), await world.connect(t)];
      const [hers, his] = [ann.subscribe(name), bob.subscribe(name)];
      await hers.succeeded();
      await his.succeeded();
      hers.channel.trigger('client-typed', 'x'.repeat(10_241));
      assert.deepEqual(await ann.errors.next(), {
        code: null,
        message: 'The data content of this event exceeds the allowed maximum (10240 bytes)',
      });
      hers.channel.trigger('client-typed', 'x'.repeat(10_240));
      assert.deepEqual(await his.next(), { event: 'client-typed', data: 'x'.repeat(10_240) });
    });

    test('P69: too many in a second is refused with 4301, and the connection stays', async (t) => {
      const name = fresh('private-chat');
      const [ann, bob] = [await world.connect(t), await world.connect(t)];
      const [hers, his] = [ann.subscribe(name), bob.subscribe(name)];
      await hers.succeeded();
      await his.succeeded();
      const sent = 40;
      for (let number = 0; number < sent; number++) hers.channel.trigger('client-typed', number);
      await ann.heard();
      await world.server.trigger(name, 'marker', 1);

      const delivered = [];
      for (let next = await his.next(); next.event !== 'marker'; next = await his.next()) delivered.push(next.data);
      assert.ok(delivered.length >= 10, `only ${delivered.length} delivered`);
      assert.ok(delivered.length < sent, 'all were delivered');
      assert.deepEqual(delivered.slice(0, 10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      for (let refused = delivered.length; refused < sent; refused++) {
        assert.equal((await ann.errors.next()).code, 4301);
      }
      assert.deepEqual(await hers.next(), { event: 'marker', data: 1 });
      assert.equal(ann.connection.state, 'connected');
    });
  });
}
